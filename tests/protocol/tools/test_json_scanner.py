"""The scanner takes what json.loads takes, and refuses where no text can go on to JSON."""

from __future__ import annotations

import json
from typing import NoReturn

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from octavo.protocol.tools.json_scanner import JsonScanner, Place

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
PIECES = st.text(alphabet='{}[],:"\\u0a1-+.eEtrufalsn \n\t', max_size=14)


def scanned(text: str) -> tuple[int, bool]:
    """How many characters were taken, and whether a list or an object of them is whole."""
    scanner = JsonScanner()
    for i, c in enumerate(text):
        if not scanner.take(c):
            return i, scanner.is_done
    return len(text), scanner.is_done


def no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def is_json(text: str) -> bool:
    try:
        json.loads(text, strict=False, parse_constant=no_constant)
    except ValueError:
        return False
    return True


@given(JSON, st.sampled_from([None, 1]))
def test_json_is_taken_whole(value: object, indent: int | None) -> None:
    text = f"[{json.dumps(value, indent=indent, ensure_ascii=False)}]"
    assert scanned(text) == (len(text), True)


@given(PIECES)
@example('"\\u00e9"')
@example("-0.5e+1")
@example("1e5")
@example("01")
@example('{"a":1,}')
@example("[1 2]")
def test_a_text_is_whole_where_python_says_so(inner: str) -> None:
    text = f"[{inner}]"
    assert (scanned(text) == (len(text), True)) == is_json(text)


@pytest.mark.parametrize(
    ("text", "taken"),
    [('{"a": b', 6), ("{a", 1), ('{"a" 1', 5), ("[1,]", 3), ("[1}", 2), ("[-a", 2), ("[nul]", 4),
     ("[01", 2), ("[1.]", 3), ('["\\x', 3), ('["\\u00g', 6), ("[] []", 2), ("[1e]", 3), ("]", 0)],
)  # fmt: skip
def test_it_stops_at_the_first_character_that_cannot_follow(text: str, taken: int) -> None:
    assert scanned(text)[0] == taken


def test_it_knows_where_it_is() -> None:
    scanner = JsonScanner()
    places = []
    for c in '{"k":["v\n",1]}':
        assert scanner.take(c)
        places.append((scanner.depth, scanner.place))
    assert places[0] == (1, Place.FIRST_KEY)
    assert places[1:4] == [(1, Place.STRING), (1, Place.STRING), (1, Place.COLON)]
    assert places[5] == (2, Place.FIRST_ITEM)
    assert places[8] == (2, Place.STRING), "a bare line break is of the string"
    assert places[-2:] == [(1, Place.AFTER), (0, Place.DONE)]


@given(st.text(alphabet='a"\\\n\x1f\x7f\u2028é🦜', max_size=9), st.integers(0, 3))
def test_the_plain_part_of_a_string_ends_where_something_else_begins(text: str, at: int) -> None:
    """However far away that is: of a long string each part is looked at once."""
    at = min(at, len(text))
    scanner = JsonScanner()
    assert scanner.plain(text, at) == 0
    scanner.take('"')
    rest = text[at:]
    ends = [i for i, c in enumerate(rest) if c in '"\\' or c < " "]
    assert scanner.plain(text, at) == min(ends, default=len(rest))
    for c in rest[: scanner.plain(text, at)]:
        assert scanner.take(c)
        assert scanner.place is Place.STRING
