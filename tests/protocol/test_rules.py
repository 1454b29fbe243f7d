"""Rules between fields: which values say something, and what is refused in which words."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.protocol.bodies import BodyError
from octavo.protocol.rules import Said, Switch, check_rules, said, so

STREAM = Switch((said("stream", False, text="`stream: true`"),), "stream: true", only=(said("x"),))
ONE = Switch((said("a"), said("b", 1)), never=(said("c", [], {}), so("d", 0)))


@pytest.mark.parametrize(
    ("each", "nothing", "something"),
    [(said("a"), (None,), (0, "", False, [], {})),
     (said("a", False), (None, False), (True, 0, 0.0)),
     (said("a", 0), (None, 0, 0.0), (False, 1, "0")),
     (said("a", "none", "auto"), (None, "auto", "none"), ("required", {"type": "auto"})),
     (said("a", {}), (None, {}, {"x": None}), ({"x": False}, [])),
     (said("a", {"type": "text"}), (None, {"type": "text"}, {"type": "text", "x": None}),
      ({}, {"type": "json"}, {"type": None})),
     (so("a", 0), (None, 1, False), (0, 0.0))],
)  # fmt: skip
def test_which_values_say_something(
    each: Said, nothing: tuple[Any, ...], something: tuple[Any, ...]
) -> None:
    assert not each.is_in({})
    assert not any(each.is_in({"a": value}) for value in nothing)
    assert all(each.is_in({"a": value}) for value in something)


@pytest.mark.parametrize(
    "fields",
    [{}, {"x": None}, {"stream": True, "x": 1}, {"a": 1, "c": []}, {"b": 1, "c": 1}, {"d": 0},
     {"a": 1, "d": 1}],
)  # fmt: skip
def test_what_keeps_the_rules(fields: dict[str, Any]) -> None:
    check_rules(fields, (STREAM, ONE))


@pytest.mark.parametrize(
    ("fields", "why", "param"),
    [({"x": 1}, "x needs stream: true", "x"),
     ({"x": 1, "stream": False}, "x needs stream: true", "x"),
     ({"b": 2, "c": [1]}, "b and c: give one of them", "c"),
     ({"a": 1, "d": 0}, "a and d: give one of them", "d")],
)  # fmt: skip
def test_what_breaks_one_is_told_by_its_fields(
    fields: dict[str, Any], why: str, param: str
) -> None:
    with pytest.raises(BodyError) as caught:
        check_rules(fields, (STREAM, ONE))
    assert (str(caught.value), caught.value.param) == (why, param)


def test_words_of_its_own_take_the_place_of_the_names() -> None:
    rule = Switch((said("new"),), never=(said("old"),), why="old is the old name of new")
    with pytest.raises(BodyError, match="old is the old name of new"):
        rule.check({"new": 1, "old": 1})


def test_it_is_told_in_sentences() -> None:
    assert STREAM.sentences() == ["Only beside `stream: true`: `x`."]
    assert ONE.sentences() == ["Never beside `a` or `b`: `c`, `d: 0`."]
