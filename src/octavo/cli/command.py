"""Verbs as click commands: what a function takes, and its docstring, are its command line.

A parameter is annotated with its type and an `Argument` or a `Flag`; its default is the value where
nothing is typed. Knows no verb.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import click


@dataclass(frozen=True, slots=True)
class Argument:
    """What is typed without a name, in its place."""

    metavar: str
    help: str


class Flag:
    """What is typed by its name, which is the parameter's where none is given: "--json" of a
    switch, "--kv-cache/--no-kv-cache" of one that may be on."""

    __slots__ = ("help", "metavar", "names", "shows_default")

    def __init__(
        self, *names: str, help: str, metavar: str | None = None, shows_default: bool = True
    ) -> None:
        self.names = names
        self.help = help
        self.metavar = metavar
        self.shows_default = shows_default


class Group(click.Group):
    """Verbs in the order in which they were added."""

    def __init__(self, name: str, *, help: str, **more: Any) -> None:
        super().__init__(name, help=help, no_args_is_help=False, **more)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def add(self, name: str, function: Callable[..., None]) -> None:
        self.add_command(command(name, function))


_METAVARS = MappingProxyType({str: "TEXT", int: "N", float: "X", Path: "PATH"})
_TYPES: Mapping[object, click.ParamType[Any]] = MappingProxyType(
    {str: click.STRING, int: click.INT, float: click.FLOAT, bool: click.BOOL}
)


def command(name: str, function: Callable[..., None]) -> click.Command:
    given = inspect.signature(function, eval_str=True).parameters.values()
    params: list[click.Parameter] = [_parameter(each) for each in given]
    several = [each.name for each in params if each.multiple]

    def call(**values: Any) -> None:
        for each in several:
            values[each] = list(values[each])
        function(**values)

    return click.Command(name, params=params, callback=call, help=inspect.getdoc(function))


def _parameter(parameter: inspect.Parameter) -> click.Argument | click.Option:
    kind, said = get_args(parameter.annotation)
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (each for each in get_args(kind) if each is not NoneType)
    several = get_origin(kind) is list
    (kind,) = get_args(kind) if several else (kind,)
    required = parameter.default is inspect.Parameter.empty
    more: dict[str, Any] = {} if required else {"default": parameter.default}
    more |= {"type": _type(kind), "help": said.help, "required": required}
    if isinstance(said, Argument):
        metavar = said.metavar if required else f"[{said.metavar}]"
        return click.Argument([parameter.name], metavar=metavar, **more)
    names = said.names or (f"--{parameter.name.replace('_', '-')}",)
    return click.Option(
        [parameter.name, *names],
        is_flag=kind is bool,
        multiple=several,
        metavar=said.metavar or _METAVARS.get(kind),
        show_default=said.shows_default,
        **more,
    )


def _type(kind: Any) -> click.ParamType[Any]:
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    return click.Path(path_type=Path) if kind is Path else _TYPES[kind]
