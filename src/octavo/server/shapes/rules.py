"""The rules between a body's fields as JSON Schema: each as the ways to keep it.

Whoever makes bodies from a document, as tools that try a server out do, combines the ways of all
rules, and gives up at sixteen: those that would make more are told in words alone. Knows no field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from octavo.protocol.rules import Said, Switch
from octavo.server.shapes.words import NULL, Schema, either, one_of, only

_MOST_WAYS = 15

Way = Mapping[str, tuple[Said, bool]]  # what is said by a field, and whether it is


def as_schemas(rules: Iterable[Switch]) -> tuple[Switch, ...]:
    """Those that are said as a schema: the first ones, while their ways are not too many."""
    found: list[Switch] = []
    ways: Sequence[Way] = [{}]
    for rule in rules:
        more = [{**one, **other} for one in ways for other in _ways(rule) if _agree(one, other)]
        if len(more) <= _MOST_WAYS:
            ways = more
            found.append(rule)
    return tuple(found)


def rule_schema(rule: Switch) -> Schema:
    return {"description": " ".join(rule.sentences()), **either(*map(_schema, _ways(rule)))}


def _ways(rule: Switch) -> list[Way]:
    """With one of its switches and without what cannot stand beside it; or without all of them, and
    without what needs one."""
    never, none = _are(rule.never, False), _are(rule.by, False)
    if not rule.only:
        return [never, none]
    on = [{**_are([each], True), **never} for each in rule.by]
    return [*on, {**none, **_are(rule.only, False)}]


def _are(some: Iterable[Said], is_said: bool) -> Way:
    return {each.name: (each, is_said) for each in some}


def _agree(one: Way, other: Way) -> bool:
    return all(other.get(name) != (said, not is_said) for name, (said, is_said) in one.items())


def _schema(way: Way) -> Schema:
    held: Schema = {
        name: _something(said) if is_said else _nothing(said)
        for name, (said, is_said) in way.items()
    }
    required = [name for name, (_, is_said) in way.items() if is_said]
    return {"required": required, "properties": held} if required else {"properties": held}


def _something(said: Said) -> Schema:
    return {"not": _nothing(said)} if said.something is None else only(said.something)


def _nothing(said: Said) -> Schema:
    if said.something is not None:
        return {"not": only(said.something)}
    plain = one_of([*(each for each in said.nothing if not isinstance(each, dict)), None])
    objects = [_object(each) for each in said.nothing if isinstance(each, dict)]
    return either(*objects, plain) if objects else plain


def _object(nothing: Mapping[str, object]) -> Schema:
    if not nothing:
        return {"type": "object", "additionalProperties": NULL}
    held = {name: only(value) for name, value in nothing.items()}
    return {"type": "object", "required": list(held), "properties": held}
