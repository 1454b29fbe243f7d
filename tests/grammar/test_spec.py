"""What a grammar may be before anything is compiled: one of four kinds, within limits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from octavo.errors import GrammarError, UsageError
from octavo.grammar import GrammarSpec
from octavo.grammar.spec import read_choice, read_schema


def nested(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth - 1):
        value = {"items": value}
    return value


def test_one_kind_is_given() -> None:
    assert GrammarSpec.of(json={"type": "object"}) == GrammarSpec("json", '{"type": "object"}')
    assert GrammarSpec.of(json='{"a":1}') == GrammarSpec("json", '{"a":1}')
    assert GrammarSpec.of(json=True).source == "true"
    assert GrammarSpec.of(regex="a+", after="</think>") == GrammarSpec("regex", "a+", "</think>")
    assert GrammarSpec.of(lark="start: /a/") == GrammarSpec("lark", "start: /a/")
    assert GrammarSpec.of(choice=("é", "b")) == GrammarSpec("choice", '["é", "b"]')
    for wrong in ({}, {"regex": "a", "choice": ["a"]}):
        with pytest.raises(UsageError, match="one of json, regex, lark and choice"):
            GrammarSpec.of(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"choice": "abc"}, "choice: expected a list of texts, found a string"),
        ({"regex": 5}, "regex: expected a string, found a whole number"),
        ({"json": {"a": float("nan")}}, "json: it cannot be written as JSON"),
        ({"json": {"a": object()}}, "json: it cannot be written as JSON"),
        ({"regex": "a", "after": ""}, "after: expected a text that is not empty"),
        ({"regex": "é" * 32769}, "the grammar .regex. has 65,538 bytes: at most 65,536"),
    ],
)
def test_what_is_none_is_refused(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(GrammarError, match=complaint):
        GrammarSpec.of(**given)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("{", "json: not JSON"),
        ('{"a": NaN}', "json: not JSON: NaN is no number"),
        ('{"const": -1e999}', "json: not JSON: -1e999 is beyond all numbers"),
        ('{"const": 1' + "0" * 4300 + "}", "json: not JSON: a number has 4,301 digits: at most"),
        ("[]", "the schema: expected an object, found a list"),
        ("false", "the schema is false"),
        ("[" * 60_000, "json: nested more than 64 deep"),
        (json.dumps(nested(65)), "nested more than 64 deep"),
        (json.dumps({"x-guidance": {}}), "has x-guidance, which is not supported"),
        (
            json.dumps({"properties": {f"{i}": {} for i in range(1001)}}),
            "has 1,001 properties: at most 1,000",
        ),
        (
            json.dumps({"anyOf": [{"enum": list(range(5001))}, {"enum": list(range(5000))}]}),
            "has 10,001 enum values: at most 10,000",
        ),
    ],
)
def test_a_schema_beyond_a_limit_is_refused(source: str, complaint: str) -> None:
    with pytest.raises(GrammarError, match=complaint):
        read_schema(source)


def test_a_schema_at_a_limit_is_read() -> None:
    assert read_schema(json.dumps(nested(64))) == nested(64)
    most: Any = {"properties": {f"{i}": {} for i in range(1000)}}
    assert read_schema(json.dumps(most)) == most
    assert read_schema("true") == {}
    assert read_schema('{"properties": {"x-guidance": {}}}')["properties"]
    whole = read_schema('{"maxLength": 2.0, "minimum": 2.5, "maximum": 1e2}')
    assert [repr(each) for each in whole.values()] == ["2", "2.5", "100.0"]


def test_formats_that_nobody_defined_are_remarks() -> None:
    given = {
        "format": "path",
        "properties": {"format": {"format": "int32"}, "day": {"format": "date"}},
        "anyOf": [{"format": "password"}, {"const": {"format": "x"}}, {"format": "iri"}],
        "default": {"format": "x"},
        "required": ["format"],
    }
    assert read_schema(json.dumps(given)) == {
        "properties": {"format": {}, "day": {"format": "date"}},
        "anyOf": [{}, {"const": {"format": "x"}}, {"format": "iri"}],
        "default": {"format": "x"},
        "required": ["format"],
    }


@pytest.mark.parametrize("source", ['{"a": 1}', "[]", '["a", ""]', '["a", 1]', "[1"])
def test_a_choice_is_of_texts(source: str) -> None:
    assert read_choice('["a", "b"]') == ["a", "b"]
    with pytest.raises(GrammarError, match="choice"):
        read_choice(source)
    with pytest.raises(GrammarError, match="choice has 10,001 texts"):
        read_choice(json.dumps(["a"] * 10_001))
