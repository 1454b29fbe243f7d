"""A request body, read strictly: every field is in the route's table, or the body is refused with
its name.

Comes in: parsed JSON. Goes out: the fields that are honoured, without nulls (null is "not given" to
OpenAI, whatever the name), and the names of those that are only noted. Ranges are the business of
SamplingParams and RequestOptions.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from octavo.errors import KINDS, UsageError, kind_of, unknown_option
from octavo.protocol.fields import Field, Table
from octavo.values import is_whole

Fields = Mapping[str, object]
T = TypeVar("T")


class BodyError(UsageError):
    """A field is unknown, not supported, or has a wrong value; `param` is its name."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True)
class Body:
    fields: Fields  # what is honoured
    noted: tuple[str, ...]  # what was given and changes no answer


def read_body(body: object, table: Table) -> Body:
    """Read the fields of `body` that say something. Raises BodyError."""
    if not isinstance(body, dict):
        raise BodyError(f"the body: expected an object, found {kind_of(body)}")
    found, noted = {}, []
    for name, value in body.items():
        if value is None:
            continue
        if name not in table:
            raise BodyError(_unknown(name, table), name)
        field = table[name]
        if field.rule == "honoured":
            _check_kinds(field, value)
            found[name] = _in_whole_numbers(field, value)
        elif field.rule == "noted":
            noted.append(name)
        elif not _asks_for_nothing(field, value):
            raise BodyError(f"{name} is not supported: leave it out", name)
    return Body(found, tuple(noted))


def read_text(fields: Fields, name: str) -> str | None:
    return read_kind(fields, name, str)


def read_flag(fields: Fields, name: str) -> bool:
    return read_kind(fields, name, bool) is True


def read_kind(fields: Fields, name: str, kind: type[T], place: str | None = None) -> T | None:
    """Return a field of this kind, None where it is not given. `place` is its whole path."""
    value = as_whole(fields.get(name)) if kind is int else fields.get(name)
    if value is not None and not _is_of(value, kind):
        at = place or name
        raise BodyError(f"{at}: expected {KINDS[kind]}, found {kind_of(value)}", at)
    return value  # type: ignore[return-value]  # checked


def as_whole(value: object) -> object:
    """JSON has one kind of number: 2.0 is 2. What is no whole number stays what it is, and what the
    parser may have rounded to the least that 64 bits hold."""
    if isinstance(value, float) and value.is_integer() and value > -(2.0**63):
        return int(value)
    return value


def read_object(where: str, value: object) -> dict[str, Any]:
    """An object that stands at this path."""
    if not isinstance(value, dict):
        raise BodyError(f"{where}: expected an object, found {kind_of(value)}", where)
    return value


def refuse_unknown(where: str, given: Mapping[Any, Any], known: Sequence[str]) -> None:
    """Refuse the fields of an object at this path that nobody reads, but for nulls."""
    for name, value in given.items():
        if name not in known and value is not None:
            raise BodyError(f"{where}: {unknown_option('field', name, known)}", f"{where}.{name}")


def _unknown(name: str, table: Table) -> str:
    """Say that there is no such field, with the nearest name; a whole table is too long."""
    known = sorted(field.name for field in table.values() if field.rule != "refused")
    if difflib.get_close_matches(name, known):
        return str(unknown_option("field", name, known))
    return f"unknown field {name!r}: this route has none of that name, leave it out"


def _check_kinds(field: Field, value: object) -> None:
    if field.kinds and not any(_is_of(value, kind) for kind in field.kinds):
        expected = " or ".join(KINDS[kind] for kind in field.kinds)
        raise BodyError(f"{field.name}: expected {expected}, found {kind_of(value)}", field.name)


def _in_whole_numbers(field: Field, value: object) -> object:
    option = field.option
    if option is not None and option.kind is int:
        return as_whole(value)
    if option is not None and option.item is int and isinstance(value, list):
        return [as_whole(each) for each in value]
    return value


def _is_of(value: object, kind: type) -> bool:
    if kind is int or kind is float:
        return is_whole(value) or (kind is float and isinstance(value, float))
    return isinstance(value, kind)


def _asks_for_nothing(field: Field, value: object) -> bool:
    return any(type(value) is type(off) and value == off for off in field.off)
