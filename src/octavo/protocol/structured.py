"""What an answer has to be, in the words of several APIs: OpenAI's `response_format`, vLLM's
`structured_outputs` and its older `guided_*`, and the format that Responses and Messages have.

Comes in: fields of a body. Goes out: one GrammarSpec, or none; or a BodyError with the field's
whole path. A schema is always enforced, `strict` or not. Compiles nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from octavo.errors import GrammarError, kind_of
from octavo.grammar import GrammarSpec
from octavo.protocol.bodies import BodyError, Fields, read_kind, read_object, refuse_unknown
from octavo.protocol.rules import said

_GUIDED: Mapping[str, str] = MappingProxyType(
    {
        "guided_json": "json",
        "guided_regex": "regex",
        "guided_choice": "choice",
        "guided_grammar": "grammar",
    }
)
FIELDS = ("response_format", "structured_outputs", *_GUIDED)  # that `read_structured` reads
ASKED = (said(FIELDS[0], {"type": "text"}), *map(said, FIELDS[1:]))
OF_OUTPUTS = ("json", "regex", "choice", "grammar", "json_object")
_FORMATS = ("text", "json_object", "json_schema")
OF_SCHEMA = ("name", "description", "schema", "strict")


class Structured(NamedTuple):
    """Says what an answer has to be, and where the body says so, by its whole path."""

    spec: GrammarSpec | None
    field: str


def read_structured(fields: Fields) -> Structured:
    """Return what a body asks its answer to be. Raises BodyError."""
    found = {name: fields[name] for name in FIELDS if fields.get(name) is not None}
    read = {name: _READERS[name](value, name) for name, value in found.items()}
    asked = {name: each for name, each in read.items() if each.spec is not None}
    if len(asked) > 1:
        first, second = list(asked)[:2]
        raise BodyError(f"{first} and {second}: give one of them", second)
    return next(iter(asked.values()), Structured(None, FIELDS[0]))


def read_format(value: object, place: str) -> Structured:
    """Return what a format asks for that has its schema beside its type, as `text.format` of
    Responses and `output_config.format` of Messages. Raises BodyError."""
    given = read_object(place, value)
    kind = _type(given, place)
    refuse_unknown(place, given, ("type", *OF_SCHEMA) if kind == "json_schema" else ("type",))
    return _of_type(kind, given, place)


def _read_response_format(value: object, place: str) -> Structured:
    given = read_object(place, value)
    kind = _type(given, place)
    if kind != "json_schema":
        refuse_unknown(place, given, ("type",))
        return _of_type(kind, given, place)
    refuse_unknown(place, given, ("type", "json_schema"))
    inner = f"{place}.json_schema"
    schema = read_object(inner, given.get("json_schema"))
    refuse_unknown(inner, schema, OF_SCHEMA)
    return _of_type(kind, schema, inner)


def _of_type(kind: str, given: Mapping[str, Any], place: str) -> Structured:
    if kind != "json_schema":
        return Structured(GrammarSpec("json_object") if kind == "json_object" else None, place)
    for name, wanted in (("name", str), ("description", str), ("strict", bool)):
        read_kind(given, name, wanted, f"{place}.{name}")
    schema = read_object(f"{place}.schema", given.get("schema"))
    return _spec("json", schema, f"{place}.schema")


def _read_outputs(value: object, place: str) -> Structured:
    given = read_object(place, value)
    refuse_unknown(place, given, OF_OUTPUTS)
    every = ((name, given.get(name)) for name in OF_OUTPUTS)
    asked = {name: each for name, each in every if each is not None and each is not False}
    if len(asked) != 1:
        raise BodyError(f"{place}: expected one of {', '.join(OF_OUTPUTS)}", place)
    ((name, each),) = asked.items()
    if name == "json_object":
        if each is not True:
            found = kind_of(each)
            raise BodyError(
                f"{place}.{name}: expected true or false, found {found}", f"{place}.{name}"
            )
        return Structured(GrammarSpec("json_object"), place)
    return _spec(name, each, f"{place}.{name}")


def _read_guided(value: object, place: str) -> Structured:
    return _spec(_GUIDED[place], value, place)


_READERS = MappingProxyType(
    {
        "response_format": _read_response_format,
        "structured_outputs": _read_outputs,
        **dict.fromkeys(_GUIDED, _read_guided),
    }
)


def _spec(kind: str, value: Any, place: str) -> Structured:
    if kind == "json" and not isinstance(value, (dict, str)):
        raise BodyError(f"{place}: expected an object, found {kind_of(value)}", place)
    try:
        spec = GrammarSpec.of(**{"lark" if kind == "grammar" else kind: value})
        spec.check()
    except GrammarError as error:
        raise BodyError(f"{place}: {error}", place) from None
    return Structured(spec, place)


def _type(given: Mapping[str, Any], place: str) -> str:
    kind = read_kind(given, "type", str, f"{place}.type")
    if kind not in _FORMATS:
        found = "nothing" if kind is None else repr(kind)
        raise BodyError(
            f"{place}.type: expected one of {', '.join(_FORMATS)}, found {found}", f"{place}.type"
        )
    return kind
