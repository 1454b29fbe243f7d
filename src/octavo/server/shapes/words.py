"""The words that shapes are written in: JSON Schema, where null is the same as leaving out.

An object has the fields that its reader in `protocol/` knows, by name; what is said here is what a
field holds, and those of which nothing is said may hold anything. Knows no field.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

Schema = dict[str, object]
Insides = Mapping[str, Schema]  # of fields of a body, by their names

NULL: Schema = {"type": "null"}
SOME: Schema = {"not": NULL}
ANY: Schema = {}
TEXT: Schema = {"type": "string"}
SOME_TEXT: Schema = {"type": "string", "minLength": 1}
MAYBE_TEXT: Schema = {"type": ["string", "null"]}
FLAG: Schema = {"type": ["boolean", "null"]}
OBJECT: Schema = {"type": "object"}


def closed(names: Collection[str], *required: str, **held: Schema) -> Schema:
    """An object of fields of these names alone."""
    assert {*held, *required} <= {*names}, "a shape has fields that nobody reads"
    found: Schema = {
        "type": "object",
        "properties": {name: held.get(name, ANY) for name in names},
        "additionalProperties": NULL,
    }
    return {**found, "required": list(required)} if required else found


def either(*shapes: Schema) -> Schema:
    return {"anyOf": list(shapes)}


def maybe(shape: Schema) -> Schema:
    """It, or null."""
    return either(shape, NULL)


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def list_of(item: Schema, least: int = 0, most: int | None = None) -> Schema:
    found: Schema = {"type": "array", "items": item}
    if least:
        found["minItems"] = least
    return found if most is None else {**found, "maxItems": most}


def one_of(values: Sequence[object]) -> Schema:
    return {"enum": list(values)}


def only(value: object) -> Schema:
    return {"const": value}


def given(**fields: Schema) -> Schema:
    """A rule of an object beside its shape: it has these, and they are so."""
    return {"required": list(fields), "properties": fields}
