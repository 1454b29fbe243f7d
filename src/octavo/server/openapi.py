"""The OpenAPI 3.1 document: the field tables, the shapes of what fields hold, and the rows that
describe routes, in that form.

What nobody reads stays open there: labels, JSON schemas, and the shapes of answers.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping

import octavo
from octavo.options import Option
from octavo.protocol.fields import Field
from octavo.server.described import DESCRIBED, ELSEWHERE, EVERYWHERE, HEADERS, Described
from octavo.server.shapes import SHAPES
from octavo.server.shapes.rules import as_schemas, rule_schema
from octavo.server.shapes.shared import EVERYWHERE as INSIDES_EVERYWHERE
from octavo.server.shapes.words import (
    ANY,
    MAYBE_TEXT,
    NULL,
    SOME,
    TEXT,
    Schema,
    given,
    one_of,
    ref,
)

_TYPES: Mapping[type, str] = {
    **{str: "string", bool: "boolean", int: "integer", float: "number"},
    **{list: "array", dict: "object"},
}
_PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")


@functools.cache
def document(
    *,
    needs_key: bool = True,
    names: tuple[str, ...] = (),
    num_tokens: int | None = None,
    width: int | None = None,
) -> Schema:
    """Return what a server with keys says of itself, or one without. `names`, if not any will do,
    `num_tokens`, and the `width` of an embedding, are its model's; None before it is loaded."""
    named: Schema = one_of(names) if names else {}
    most: Schema = {} if num_tokens is None else {"maximum": num_tokens - 1}
    size: Schema = {} if width is None else {"const": width}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Octavo",
            "version": octavo.__version__,
            "description": "Every field of a body is honoured, noted (it changes no answer; the "
            "header x-octavo-ignored names it) or refused. null is the same as leaving it out.",
        },
        "paths": _paths(),
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
            "schemas": {
                **{"Error": _ERROR, "AnthropicError": _ANTHROPIC_ERROR, **SHAPES},
                "ModelName": {**SHAPES["ModelName"], **named},
                "TokenId": {**SHAPES["TokenId"], **most},
                "EmbeddingSize": {**SHAPES["EmbeddingSize"], **size},
            },
            "headers": {name: _header(says) for name, says in HEADERS.items()},
            "responses": {
                str(status): _error_response(status, says)
                for status, says in {**EVERYWHERE, **ELSEWHERE}.items()
            },
        },
        "security": [{"bearer": []}, {"x-api-key": []}] if needs_key else [],
    }


def path_of(path: str) -> str:
    """A path of the table of routes as OpenAPI writes it."""
    return _PARAMETER.sub(r"{\1}", path)


def body_schema(row: Described) -> Schema:
    """Every field that is not refused, and of those that are the values that ask for nothing. A
    null is taken under any name."""
    assert row.table is not None
    insides = {**INSIDES_EVERYWHERE, **row.insides}
    shown = {
        field.name: field_schema(field, insides.get(field.name, ANY))
        for field in row.table.values()
        if field.rule != "refused" or field.off
    }
    for name in row.required:
        shown[name] = {**shown[name], **SOME}
    found: Schema = {"type": "object", "properties": shown, "additionalProperties": NULL}
    if row.required:
        found["required"] = list(row.required)
    if row.one_of:
        found["oneOf"] = [given(**{name: SOME}) for name in row.one_of]
    sayable = as_schemas(row.rules)
    if sayable:
        found["allOf"] = [rule_schema(each) for each in sayable]
    if told := [says for each in row.rules if each not in sayable for says in each.sentences()]:
        found["description"] = " ".join(told)
    return found


def field_schema(field: Field, inside: Schema = ANY) -> Schema:
    """`inside` says of one that is honoured what it holds, beyond what the table says."""
    if field.rule == "refused":
        return {"description": "Not supported.", "enum": [*field.off, None]}
    if field.rule == "noted":
        return {"description": "Accepted; it changes no answer."}
    found: Schema = {"description": f"{field.help}."} if field.help else {}
    if field.option is not None:
        return {**found, **_option_schema(field.option), **inside}
    if field.kinds:
        found["type"] = [*(_TYPES[kind] for kind in field.kinds), "null"]
    return {**found, **inside}


def _option_schema(option: Option) -> Schema:
    if option.item is str:  # as such: a list of one
        return {"type": ["string", "array", "null"]}
    if option.choices:
        return {"enum": list(dict.fromkeys((*option.choices, None)))}
    found: Schema = {"type": [_TYPES[option.kind], "null"]}
    if not math.isinf(option.low):
        found["exclusiveMinimum" if option.above else "minimum"] = option.low
    if not math.isinf(option.high):
        found["maximum"] = option.high
    return found


def _paths() -> dict[str, dict[str, Schema]]:
    found: dict[str, dict[str, Schema]] = {}
    for (method, path), row in DESCRIBED.items():
        if not row.gives:
            continue  # it only refuses
        found.setdefault(path_of(path), {})[method.lower()] = _operation(path, row)
    return found


def _operation(path: str, row: Described) -> Schema:
    found: Schema = {"summary": row.summary}
    parameters = [
        *(_parameter(name, "path", required=True) for name in _PARAMETER.findall(path)),
        *(_parameter(name, "query", help) for name, help in row.query),
    ]
    if parameters:
        found["parameters"] = parameters
    if row.table is not None:
        content = {"application/json": _is(body_schema(row))}
        is_required = bool(row.required or row.one_of)
        found["requestBody"] = {"required": is_required, "content": content}
    if row.is_public:
        found["security"] = []
    statuses = sorted({*EVERYWHERE, *row.statuses})
    found["responses"] = {
        "200": _answer(row),
        **{str(each): {"$ref": f"#/components/responses/{each}"} for each in statuses},
    }
    return found


def _parameter(name: str, place: str, help: str = "", *, required: bool = False) -> Schema:
    found: Schema = {"name": name, "in": place, "required": required, "schema": {"type": "string"}}
    return {**found, "description": f"{help}."} if help else found


def _answer(row: Described) -> Schema:
    kind: Schema = {"type": "object" if row.media_type == "application/json" else "string"}
    content = {row.media_type: _is(kind)}
    if row.streams:
        content["text/event-stream"] = _is({})  # some read it as one text, some event by event
    return {
        "description": f"{row.gives}.",
        "headers": _headers("x-request-id", *row.headers),
        "content": content,
    }


def _error_response(status: int, says: str) -> Schema:
    shapes = [ref(name) for name in ("Error", "AnthropicError")]
    schema: Schema = {"anyOf": [*shapes, _READY] if status == 503 else shapes}
    own = {405: ("Allow",), 429: ("Retry-After",), 503: ("Retry-After",), 529: ("Retry-After",)}
    names = ("x-request-id", *own.get(status, ()))
    content: Schema = {"application/json": _is(schema)}
    return {"description": f"{says}.", "headers": _headers(*names), "content": content}


def _headers(*names: str) -> Schema:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _header(says: str) -> Schema:
    return {"description": f"{says}.", "schema": {"type": "string"}}


def _is(schema: Mapping[str, object]) -> Schema:
    return {"schema": schema}


def _object(properties: Schema, *required: str) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


_SAYS = {"type": TEXT, "message": TEXT}
_ERROR = _object(
    {"error": _object({**_SAYS, "param": MAYBE_TEXT, "code": MAYBE_TEXT}, "message", "type")},
    "error",
)
_ANTHROPIC_ERROR = _object(
    {
        "type": {"const": "error"},
        "error": _object(dict(_SAYS), "type", "message"),
        "request_id": TEXT,
    },
    *("type", "error", "request_id"),
)
_READY = _object({"status": {"enum": ["starting", "draining"]}}, "status")
