"""The beginnings of objects that broken-off answers leave."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.protocol.messages.written_object import object_of

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "whole"),
    [("{", {}), ('{"a', {}), ('{"a": ', {}), ('{"a": "x', {}), ('{"a": 1, "b": "x"', {"a": 1}),
     ('{"a": {"b": [1, 2, 3', {"a": {"b": [1, 2]}}), ('{"a": [], "b"', {"a": []}),
     ('{"a": "}, ]\\", ", "b": tr', {"a": '}, ]", '}), ('{"a": {"b": 1}', {"a": {"b": 1}})],
)  # fmt: skip
def test_what_is_whole_is_kept(text: str, whole: object) -> None:
    assert object_of(text) == whole


@pytest.mark.parametrize(
    ("text", "whole"),
    [("{'a': 1}", {}), ('{"a": 1, \'b\': 2}', {"a": 1}), ('{"a": [1, 2], b}', {"a": [1, 2]}),
     ('{"a": <call>', {}), ('{"a": {"b": 1, ]}', {"a": {"b": 1}}), ("[1]", {}), ("}", {}),
     ('"x" y', {}), ("", {}), ("5", {})],
)  # fmt: skip
def test_of_what_is_no_json_the_beginning_is_kept(text: str, whole: object) -> None:
    assert object_of(text) == whole


@given(st.text(alphabet='{}[],:"\\u0a1-.etrufalsn \n', max_size=14))
def test_there_is_an_object_of_whatever_was_written(text: str) -> None:
    assert isinstance(object_of("{" + text), dict)
    assert isinstance(object_of(text), dict)


@given(st.dictionaries(st.text(max_size=3), VALUES), st.integers(0, 200))
def test_each_beginning_is_a_part_of_the_object(value: dict[str, object], cut: int) -> None:
    text = json.dumps(value)
    assert object_of(text) == value
    assert is_part(object_of(text[: min(cut, len(text))]), value)


def is_part(part: object, whole: object) -> bool:
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and is_part(part[key], whole[key]) for key in part)
    if isinstance(part, list) and isinstance(whole, list):
        return all(map(is_part, part, whole)) and len(part) <= len(whole)
    return part == whole


def test_values_are_those_that_any_reader_takes() -> None:
    assert object_of('{"half": "\\ud800", "\\udfff": 1}') == {"half": "?", "?": 1}
    assert object_of('{"long": 9999999999999999999}') == {"long": 1e19}
    deep = object_of('{"a": ' + "[" * 100 + "]" * 100 + "}")
    assert '"[[' in json.dumps(deep)
    assert object_of('{"a": ' + "[" * 100_000) == {}


def test_numbers_beyond_all_floats_are_null() -> None:
    huge = "1" * 5000
    assert object_of(f'{{"a": {huge}, "b": -1e999, "c": [1e5]}}') == {
        "a": None, "b": None, "c": [1e5],
    }  # fmt: skip
