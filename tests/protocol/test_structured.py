"""What an answer has to be, in each API's words: one grammar, or an error that names the field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from octavo.grammar import GrammarSpec
from octavo.protocol.bodies import BodyError
from octavo.protocol.structured import read_format, read_structured

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
OF_SCHEMA = GrammarSpec.of(json=SCHEMA)
WHOLE_PLACE = "response_format.json_schema.schema"
WHOLE = {"name": "x", "description": "y", "strict": True, "schema": SCHEMA}


@pytest.mark.parametrize(
    ("fields", "spec"),
    [
        ({}, None),
        ({"response_format": None, "guided_json": None}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, GrammarSpec("json_object")),
        ({"response_format": {"type": "json_schema", "json_schema": WHOLE}}, OF_SCHEMA),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
            OF_SCHEMA,
        ),
        ({"structured_outputs": {"json": SCHEMA}}, OF_SCHEMA),
        ({"structured_outputs": {"json": json.dumps(SCHEMA)}}, OF_SCHEMA),
        ({"structured_outputs": {"json": None, "regex": "a+"}}, GrammarSpec("regex", "a+")),
        ({"structured_outputs": {"choice": ["a", "b"]}}, GrammarSpec("choice", '["a", "b"]')),
        ({"structured_outputs": {"grammar": "start: /a/"}}, GrammarSpec("lark", "start: /a/")),
        ({"structured_outputs": {"json_object": True}}, GrammarSpec("json_object")),
        ({"guided_json": SCHEMA}, OF_SCHEMA),
        ({"guided_regex": "a+"}, GrammarSpec("regex", "a+")),
        ({"guided_choice": ["a", "b"]}, GrammarSpec("choice", '["a", "b"]')),
        ({"guided_grammar": "start: /a/"}, GrammarSpec("lark", "start: /a/")),
        ({"response_format": {"type": "text"}, "guided_regex": "a"}, GrammarSpec("regex", "a")),
    ],
)
def test_what_is_asked_for(fields: dict[str, Any], spec: GrammarSpec | None) -> None:
    asked = read_structured(fields)
    assert asked.spec == spec
    assert spec is None or fields[asked.field.partition(".")[0]] is not None


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"response_format": {"type": "json_schema", "json_schema": WHOLE}}, WHOLE_PLACE),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"structured_outputs": {"regex": "a"}}, "structured_outputs.regex"),
        ({"guided_regex": "a"}, "guided_regex"),
    ],
)
def test_where_it_stands_is_the_whole_path(fields: dict[str, Any], place: str) -> None:
    assert read_structured(fields).field == place


@pytest.mark.parametrize(
    ("fields", "param", "complaint"),
    [
        ({"response_format": "json"}, "response_format", "expected an object, found a string"),
        ({"response_format": {}}, "response_format.type", "expected one of text, json_object"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "found 'xml'"),
        ({"response_format": {"type": 1}}, "response_format.type", "expected a string"),
        (
            {"response_format": {"type": "json_object", "schema": {}}},
            "response_format.schema",
            "unknown field 'schema'",
        ),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema",
            "expected an object, found null",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
            "expected an object, found null",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {**WHOLE, "strict": 1}}},
            "response_format.json_schema.strict",
            "expected true or false, found a whole number",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {**WHOLE, "shema": 1}}},
            "response_format.json_schema.shema",
            "did you mean schema",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"schema": {"x-guidance": 1}},
                }
            },
            "response_format.json_schema.schema",
            "x-guidance, which is not supported",
        ),
        ({"structured_outputs": {}}, "structured_outputs", "expected one of json, regex, choice"),
        (
            {"structured_outputs": {"json": {}, "regex": "a"}},
            "structured_outputs",
            "expected one of json, regex, choice",
        ),
        (
            {"structured_outputs": {"structural_tag": "a"}},
            "structured_outputs.structural_tag",
            "unknown field",
        ),
        (
            {"structured_outputs": {"json_object": 1}},
            "structured_outputs.json_object",
            "expected true or false",
        ),
        (
            {"structured_outputs": {"json": {}, "json_object": 0}},
            "structured_outputs",
            "expected one of json",
        ),
        ({"structured_outputs": {"json": 5}}, "structured_outputs.json", "expected an object"),
        ({"guided_json": "{"}, "guided_json", "not JSON"),
        ({"guided_regex": 5}, "guided_regex", "expected a string"),
        ({"guided_choice": "ab"}, "guided_choice", "expected a list of texts"),
        ({"guided_choice": ["a", 1]}, "guided_choice", "texts that are not empty, found 1"),
        ({"guided_choice": []}, "guided_choice", "at least one text"),
        ({"guided_grammar": "x" * 65_537}, "guided_grammar", "65,537 bytes: at most 65,536"),
        (
            {"guided_regex": "a", "response_format": {"type": "json_object"}},
            "guided_regex",
            "response_format and guided_regex: give one of them",
        ),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str, complaint: str) -> None:
    with pytest.raises(BodyError, match=complaint) as refused:
        read_structured(fields)
    assert refused.value.param == param


def test_a_format_with_its_schema_beside_its_type() -> None:
    flat = {"type": "json_schema", **WHOLE}
    assert read_format(flat, "text.format") == (OF_SCHEMA, "text.format.schema")
    assert read_format({"type": "text"}, "text.format").spec is None
    assert read_format({"type": "json_object"}, "text.format").spec == GrammarSpec("json_object")
    for wrong, param in (
        ({"type": "json_schema", "json_schema": WHOLE}, "text.format.json_schema"),
        ({"type": "json_schema"}, "text.format.schema"),
        ({"type": "lark"}, "text.format.type"),
    ):
        with pytest.raises(BodyError) as refused:
            read_format(wrong, "text.format")
        assert refused.value.param == param
