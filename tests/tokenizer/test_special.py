"""Special tokens in a text: the leftmost, then the longest, and never inside another one."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from octavo.tokenizer.special import Fragment, SpecialMatcher, without_white

NAMES = {"<a>": 1, "<ab>": 2, "<a": 3, "b>": 4, "[x]": 5}


def test_the_longest_name_at_the_leftmost_place_wins() -> None:
    matcher = SpecialMatcher(NAMES)
    assert matcher.split("q<ab><a>b>r<a") == ["q", 2, 1, 4, "r", 3]
    assert matcher.split("<<a>") == ["<", 1]
    assert matcher.split("") == []
    assert SpecialMatcher({}).split("<a>") == ["<a>"]


def test_nothing_is_found_inside_an_opaque_text() -> None:
    assert SpecialMatcher({"<a>": 1}, ["[<a>]"]).split("<a>[<a>]<a>") == [1, "[<a>]", 1]


@given(st.text("<>ab[x]q", max_size=30))
def test_it_finds_what_a_regular_expression_finds(text: str) -> None:
    pattern = "|".join(re.escape(name) for name in sorted(NAMES, key=len, reverse=True))
    want = [NAMES.get(part, part) for part in re.split(f"({pattern})", text) if part]
    assert SpecialMatcher(NAMES).split(text) == want


def test_parts_of_a_name_are_measured_at_the_ends() -> None:
    matcher = SpecialMatcher({"<|end|>": 1, "<|turn|>": 2})
    assert matcher.beginning_at_end("go <|e") == 3
    assert matcher.beginning_at_end("go <|e ") == 0
    assert matcher.beginning_at_end("<|end|>") == 0
    assert matcher.ending_at_start("|> go") == 2
    assert matcher.ending_at_start("nd|> go") == 4
    assert matcher.ending_at_start("<|end|>") == 0
    assert matcher.is_inside_one("tur")
    assert not matcher.is_inside_one("turf")


def test_white_space_beside_tokens_that_take_it_is_gone() -> None:
    left, right = frozenset({1, 3}), frozenset({2, 3})
    cases: list[tuple[list[Fragment], list[Fragment]]] = [
        (["a ", 1, " b"], ["a", 1, " b"]),
        (["a ", 2, " \n b"], ["a ", 2, "b"]),
        ([" ", 1, 2, "\t\u00a0\u2028", 1, "c"], [1, 2, 1, "c"]),
        (["a\x1c", 3, "\x1c b"], ["a\x1c", 3, "\x1c b"]),  # no white space in Unicode
        ([3, " ", 3, " "], [3, 3]),
    ]
    for fragments, kept in cases:
        assert without_white(fragments, left, right) == kept
