"""Rules between the fields of a body: which mean something only beside another, and which cannot
stand beside it.

A route has a table of them beside that of its fields: its reader checks them, and the OpenAPI
document and docs/api.md are made from them. Knows fields by their names alone, and no JSON Schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from octavo.protocol.bodies import BodyError, Fields


@dataclass(frozen=True, slots=True)
class Said:
    """That a field says something: it is given, and not with a value that asks for nothing."""

    name: str
    nothing: tuple[object, ...] = ()  # beside null; an object means all that have its fields so
    something: object = None  # the one value that does, where that is said in its place
    text: str = field(default="", compare=False)  # what is said, in a sentence; "": the name

    def is_in(self, fields: Fields) -> bool:
        value = fields.get(self.name)
        if value is None or self.something is not None:
            return value is not None and _is_such(value, self.something)
        return not any(_is_such(value, each) for each in self.nothing)

    def __str__(self) -> str:
        return self.text or f"`{self.name}`"


@dataclass(frozen=True, slots=True)
class Switch:
    """A field, or one of several, that decides what others mean: `only` where it says something
    they may say something too, and `never` there."""

    by: tuple[Said, ...]
    how: str = ""  # it says something, in the words of an error
    only: tuple[Said, ...] = ()
    never: tuple[Said, ...] = ()
    why: str = ""  # an error's words in place of those that name both fields

    def check(self, fields: Fields) -> None:
        """Raises BodyError."""
        on = next((each for each in self.by if each.is_in(fields)), None)
        for each in self.only if on is None else self.never:
            if each.is_in(fields):
                why = f"{each.name} needs {self.how}"
                if on is not None:
                    why = self.why or f"{on.name} and {each.name}: give one of them"
                raise BodyError(why, each.name)

    def sentences(self) -> list[str]:
        """Return what it says to a reader of the documents."""
        by = " or ".join(map(str, self.by))
        found = []
        if self.only:
            found.append(f"Only beside {by}: {_listed(self.only)}.")
        if self.never:
            found.append(f"Never beside {by}: {_listed(self.never)}.")
        return found


def said(name: str, *nothing: object, text: str = "") -> Said:
    return Said(name, nothing, text=text)


def so(name: str, value: object) -> Said:
    """That a field has this value."""
    return Said(name, something=value, text=f"`{name}: {value}`")


def check_rules(fields: Fields, rules: Iterable[Switch]) -> None:
    """Raises BodyError for the first that a body does not keep."""
    for each in rules:
        each.check(fields)


def _is_such(value: object, such: object) -> bool:
    """Whether a value is this one, as JSON has it: 1 is 1.0 and not true."""
    if isinstance(such, Mapping) and isinstance(value, Mapping):
        if not such:
            return all(each is None for each in value.values())
        return all(_is_such(value.get(name), each) for name, each in such.items())
    return isinstance(value, bool) is isinstance(such, bool) and value == such


def _listed(some: Iterable[Said]) -> str:
    return ", ".join(map(str, some))
