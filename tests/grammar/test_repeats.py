"""What a pattern repeats is written out in numbers, and refused, before it is compiled."""

from __future__ import annotations

import pytest

from octavo.errors import GrammarError
from octavo.grammar import GrammarSpec
from octavo.grammar.repeats import longest_of_lark, longest_of_regex
from octavo.grammar.spec import MAX_LENGTH
from tests.grammar.toy import compiled


@pytest.mark.parametrize(
    ("regex", "length"),
    [("", 0), ("a{3}", 3), ("(a{100}){100}", 10_000), ("(ab|c{5}){2,}x?", 10), ("a{0,9}b*c+", 1),
     (r"[a-z]{63}(\.[a-z]{63}){3}", 255), ("(?:a{4}){3}", 12), ("(?i)a{5}$", 5),
     ("(?P<n>ab){3}", 6), (r"\p{L}{7}", 7), ("[{}()]{4}", 4), (r"\({4}", 4), ("a{9}{9}", 81),
     (r"[\]a]{3}", 3), ("^ab {2}c", 4), ("a? {5}", 5), ("a{x}", 4), (")){3}", 0), ("(((a", 1)],
)  # fmt: skip
def test_a_regular_expression(regex: str, length: int) -> None:
    assert longest_of_regex(regex) == length


def test_counts_have_no_end() -> None:
    assert longest_of_regex("a{" + "9" * 5000 + "}") > MAX_LENGTH
    assert longest_of_regex("(" * 5000 + "a" + "{9})" * 5000) > MAX_LENGTH


@pytest.mark.parametrize(
    ("lark", "length"),
    [('start: "abc"', 3), ("start: /a{7}/", 7), ('start: X{9}\nX: "a"{8}', 8),
     ('start: X\nX: Y{9} "/"\nY: "a"{8}', 73), ('Y: "a"{8}\nX: Y{9}', 72),
     ('A.2: ("ab" | "c"){3}\n// A: "a"{99}\n', 6), ('?x: "a"{99}\n!y: x{9}', 1),
     ('A: B\nB: A{2} "x"', 3), ('start: %json {"pattern": "^a{99}$"}', 99)],
)  # fmt: skip
def test_a_grammar(lark: str, length: int) -> None:
    assert longest_of_lark(lark) == length


BOMB = "((a{100}){100}){100}"


@pytest.mark.parametrize(
    "spec",
    [GrammarSpec.of(regex=BOMB), GrammarSpec.of(lark=f"start: /{BOMB}/"),
     GrammarSpec.of(lark='start: A{100}\nA: B{100}\nB: C{100}\nC: "x"{100}'),
     GrammarSpec.of(json={"properties": {"a": {"type": "string", "pattern": BOMB}}}),
     GrammarSpec.of(json={"patternProperties": {BOMB: {}}})],
)  # fmt: skip
def test_what_is_too_long_is_refused_and_not_compiled(spec: GrammarSpec) -> None:
    for refuse in (spec.check, lambda: compiled(spec)):
        with pytest.raises(GrammarError, match="asks for 1,000,000 characters at least: at most"):
            refuse()


def test_a_property_may_be_called_pattern() -> None:
    GrammarSpec.of(json={"properties": {"pattern": {"type": "string"}}}).check()
