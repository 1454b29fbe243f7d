"""An option is one line: a dataclass field that `option` makes, with its help, range and flag.

All who know options read that line: the check (`check`, for `__post_init__`), `help()` (`described`
and `takes`), the command line's flags and the fields of a request body (`options_of`). For type
checkers alone a function that takes options by keyword has a TypedDict beside their dataclass.
Knows no option.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from octavo.errors import unknown_option
from octavo.values import check_choice, check_flag, check_number, check_text, check_whole, plain

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Option:
    """What one option takes and is for; from `name` on as its field says."""

    help: str  # a sentence without its full stop
    low: float
    high: float
    above: bool  # `low` itself is none of the values
    choices: tuple[object, ...]
    parse: (
        Callable[[str, Any], object] | None
    )  # name and value to what the field holds, or an error
    flag: str | None  # what --help says after `help`; None where there is no flag
    escapes: bool  # the flag's text may spell control characters, as \\n
    name: str = ""
    kind: type = object  # list where the values are several, dict where they have keys
    item: type | None = None  # of a list
    takes_none: bool = False  # None is a value, not "not given"
    default: object = None

    def taken(self, value: object) -> object:
        """A value that was given as the field holds it, None where it was not given. Raises
        UsageError, which names the option, what was expected and what was found."""
        value = plain(value)
        if value is None:
            return None if self.takes_none else self.default
        if self.parse is not None:
            return self.parse(self.name, value)
        if self.choices:
            check_choice(self.name, value, self.choices)
        elif self.kind is bool:
            check_flag(self.name, value)
        elif self.kind is int:
            check_whole(self.name, value, self.low, self.high)
        elif self.kind is float:
            check_number(self.name, value, self.low, self.high, above=self.above)
        else:
            check_text(self.name, value)
        return value


def option(
    default: T,
    help: str,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    above: bool = False,
    choices: tuple[object, ...] = (),
    parse: Callable[[str, Any], object] | None = None,
    flag: str | None = "",
    escapes: bool = False,
    hash: bool | None = None,
) -> T:
    """A field of a dataclass of options; `Option` says what its parts mean. `hash` is False of one
    whose values have none."""
    rule = Option(help, low, high, above, choices, parse, flag, escapes)
    return field(default=default, metadata={"option": rule}, hash=hash)


def options_of(owner: type) -> tuple[Option, ...]:
    """The options of a dataclass, in its order."""
    return _read_options(owner)


@functools.cache
def _read_options(owner: type) -> tuple[Option, ...]:
    hints = get_type_hints(owner)
    return tuple(
        replace(
            each.metadata["option"],
            name=each.name,
            default=each.default,
            **_kind_of(hints[each.name], each.metadata["option"].choices),
        )
        for each in fields(owner)
    )


def check(options: Any) -> None:
    """Make every field of a dataclass of options what `Option.taken` gives for it; also of a
    frozen one."""
    for each in options_of(type(options)):
        value = getattr(options, each.name)
        if value is not each.default:
            object.__setattr__(options, each.name, each.taken(value))


def parse_options(owner: type[T], what: str, given: Mapping[str, object]) -> T:
    """A dataclass of options from names of outside; one that is unknown is an error, which calls it
    `what`."""
    known = [each.name for each in options_of(owner)]
    for name in given:
        if name not in known:
            raise unknown_option(what, name, known)
    return owner(**given)


def described(owner: type[T]) -> type[T]:
    """Add to the docstring of a dataclass of options what each is for."""
    owner.__doc__ = _with_help(owner.__doc__, owner)
    return owner


def takes(owner: type) -> Callable[[F], F]:
    """Give a method that ends in `**options` the signature and the help of those of `owner`."""

    def wrap(function: F) -> F:
        (*own, _) = inspect.signature(function).parameters.values()
        keywords = [
            inspect.Parameter(
                each.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=each.default,
                annotation=each.type,
            )
            for each in fields(owner)
        ]
        function.__signature__ = inspect.Signature([*own, *keywords])  # type: ignore[attr-defined]
        function.__doc__ = _with_help(function.__doc__, owner)
        return function

    return wrap


def _with_help(doc: str | None, owner: type) -> str:
    rows = [(each.name, each.metadata["option"].help) for each in fields(owner)]
    width = max(len(name) for name, _ in rows)
    table = "\n".join(f"{name:{width}}  {help}" for name, help in rows)
    return f"{inspect.cleandoc(doc or '')}\n\n{table}"


def _kind_of(hint: Any, choices: tuple[object, ...]) -> dict[str, Any]:
    """Return what an annotation says: of several types the last counts, and whether one is None."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    *_, kind = (each for each in kinds if each is not NoneType)
    found: dict[str, Any] = {"takes_none": NoneType in kinds}
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        kind = type(choices[0])
    elif get_origin(kind) is Sequence:
        (found["item"],) = get_args(kind)
        kind = list
    elif get_origin(kind) is Mapping:
        kind = dict
    return {**found, "kind": kind, "choices": choices}
