"""An option is one line: what reads it, and that every option there is can be read."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_type_hints

import numpy as np
import pytest
from click.testing import CliRunner

from octavo import AsyncEngine, EngineConfig, RequestOptions, SamplingParams, UsageError
from octavo.cli.command import command
from octavo.cli.flags import BATCH_ENGINE, REQUEST, SAMPLING, with_flags
from octavo.config import EngineOptions, ServingConfig, ServingOptions
from octavo.options import Option, check, described, option, options_of, parse_options, takes
from octavo.protocol.completions import parse_completion
from octavo.values import plain
from tests.option_values import other_value

OWNERS = (EngineConfig, ServingConfig, SamplingParams, RequestOptions)
ALL = [pytest.param(o, each, id=each.name) for o in OWNERS for each in options_of(o)]
every_option = pytest.mark.parametrize(("owner", "each"), ALL)

# What the value of an option depends on.
WITH: dict[str, dict[str, Any]] = {
    "length_penalty": {"beam_width": 2},
    "early_stopping": {"beam_width": 2},
    "kv_sinks": {"kv_dtype": "int4", "block_size": 64},
    "sinks": {"sliding_context": 64},
}
Typed = Callable[..., dict[Any, Any]]


def _parse_double(name: str, value: object) -> int:
    if not isinstance(value, str):
        raise UsageError(f"{name}={value!r}: expected a text")
    return 2 * int(value)


@described
@dataclass(frozen=True, slots=True)
class Tea:
    """A class of options, as for a cup of tea."""

    size: int = option(3, "Spoons", 1, 9)
    limit: float | None = option(2.5, "Minutes", 0, above=True)
    kind: Literal["green", "black"] = option("green", "Leaves")
    name: str = option("x", "Whose", flag=None)
    twice: int = option(8, "Half of it", parse=_parse_double)
    leaves: str | Sequence[str] = option((), "Each", parse=lambda _, value: tuple(value))
    hot: bool = option(True, "Boil")

    def __post_init__(self) -> None:
        check(self)


def test_the_annotation_says_the_kind() -> None:
    found = [(o.name, o.kind, o.item, o.takes_none, o.choices) for o in options_of(Tea)]
    assert found == [
        ("size", int, None, False, ()), ("limit", float, None, True, ()),
        ("kind", str, None, False, ("green", "black")), ("name", str, None, False, ()),
        ("twice", int, None, False, ()), ("leaves", list, str, False, ()),
        ("hot", bool, None, False, ()),
    ]  # fmt: skip


def test_options_are_read_by_name_and_none_is_the_default_where_it_is_no_value() -> None:
    tea = Tea(size=None, limit=None, name=np.str_("y"))  # type: ignore[arg-type]
    assert tea == Tea(3, None, name="y")
    assert type(tea.name) is str
    # A value is read by its own parser, and a default is not.
    assert (Tea().twice, Tea(twice="5").twice) == (8, 10)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="twice=5: expected a text"):
        Tea(twice=5)
    assert parse_options(Tea, "tea", {"size": 2}) == Tea(2)
    with pytest.raises(UsageError, match="unknown tea 'sise'; did you mean size"):
        parse_options(Tea, "tea", {"sise": 2})


def test_help_has_a_line_for_each_option() -> None:
    assert (Tea.__doc__ or "").startswith(
        "A class of options, as for a cup of tea.\n\nsize    Spoons\nlimit   Minutes\n"
    )

    @takes(Tea)
    def pour(cup: str, **options: Any) -> None:
        """Pour."""

    assert list(inspect.signature(pour).parameters) == ["cup", *(f.name for f in fields(Tea))]
    assert inspect.signature(pour).parameters["limit"].default == 2.5
    assert (pour.__doc__ or "").startswith("Pour.\n\nsize    Spoons\n")


@every_option
def test_every_option_says_what_it_is_for(owner: type, each: Option) -> None:
    assert re.fullmatch(r"\S.{6,}[^.\s]", each.help), each.help
    for choice in each.choices:
        assert str(choice) in each.help
    told = re.search(r"default ([\w.]*\w)", each.help)
    if told is not None and each.default is not None:
        assert told[1] == f"{each.default:g}"


@every_option
def test_every_option_takes_its_default_and_none(owner: type, each: Option) -> None:
    assert each.default is None or each.taken(each.default) == each.default
    assert each.taken(None) == (None if each.takes_none else each.default)
    assert getattr(owner(), each.name) == each.default


def wrong_values(each: Option) -> list[object]:
    """Return values of another type, and beyond the ends: bool is no number, a fraction not
    whole."""
    wrong: list[object] = [object(), b"x", math.nan]
    wrong += [{"no such": 1}] if each.kind is dict else [{}]
    if each.kind is not bool:
        wrong += [True, np.bool_(False), [True]]
    if str not in (each.kind, each.item):
        wrong.append("no such")
    if each.kind is int and each.name != "kv_memory":  # whose text may say 1.5GiB
        wrong += [1.5, -math.inf]
    if each.kind in (int, float) and each.parse is None and not each.choices:
        assert each.low > -math.inf
        wrong += [each.low - 1, *([each.low] if each.above else [])]
        wrong += [each.high + 1] if each.high < math.inf else [10**400]
    if each.choices:
        wrong += [f"{each.choices[0]} ", 7]
    return wrong


@every_option
def test_every_option_refuses_what_it_does_not_take(owner: type, each: Option) -> None:
    for value in wrong_values(each):
        shown = ".*" if each.kind is list else re.escape(repr(plain(value)))
        with pytest.raises(UsageError, match=rf"^{each.name}={shown}: expected "):
            owner(**{**WITH.get(each.name, {}), each.name: value})


@every_option
def test_every_option_takes_what_lies_between_the_ends(owner: type, each: Option) -> None:
    value = other_value(each)
    assert getattr(owner(**{**WITH.get(each.name, {}), each.name: value}), each.name) == value
    if each.kind in (int, float) and each.parse is None and not each.choices:
        for end in [*([] if each.above else [each.low]), each.high]:
            assert end in (-math.inf, math.inf) or each.taken(np.asarray(end)) == end


@pytest.fixture
def typed() -> Typed:
    """What a verb gets for flags that were typed."""
    found: dict[Any, Any] = {}

    @with_flags(sampling=SAMPLING, request=REQUEST, engine=BATCH_ENGINE)
    def verb(*, sampling: SamplingParams, options: RequestOptions, engine: dict[str, Any]) -> None:
        for each in (sampling, options, EngineConfig.parse(engine)):
            found[type(each)] = each

    def call(*arguments: str) -> dict[Any, Any]:
        result = CliRunner().invoke(command("verb", verb), arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return {**found, "output": " ".join(result.output.split())}

    return call


def typed_flags(name: str, value: Any) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    values = value if isinstance(value, tuple) else (value,)
    return [text for each in values for text in (flag, str(each))]


@every_option
def test_every_option_reaches_the_command_line(owner: type, each: Option, typed: Typed) -> None:
    text = typed("--help")["output"]
    flag = f"--{each.name.replace('_', '-')}"
    assert (f" {flag} " in text) is (each.flag is not None)
    if each.flag is None:
        return
    assert f"{each.help}{each.flag}".replace(" ", "") in text.replace(" ", "")
    value = other_value(each)
    more = [t for name, other in WITH.get(each.name, {}).items() for t in typed_flags(name, other)]
    assert getattr(typed(*typed_flags(each.name, value), *more)[owner], each.name) == value


@every_option
def test_every_option_of_a_request_reaches_a_body(owner: type, each: Option) -> None:
    if owner not in (SamplingParams, RequestOptions) or each.name in (
        "begins_turn",
        "shown_tokens",
        "logprobs",
        "pooling",
        "constraint",
    ):
        return
    if each.name == "prompt_logprobs":  # of a body with `echo`
        body: dict[str, Any] = {"echo": True, "logprobs": 2}
    else:
        body = {**WITH.get(each.name, {}), each.name: other_value(each)}
    body = {k: list(v) if isinstance(v, tuple) else v for k, v in body.items()}
    request = parse_completion({"prompt": "x", **body})
    found = request.params if owner is SamplingParams else request.options
    assert getattr(found, each.name) == other_value(each)


def test_a_type_checker_is_told_the_same() -> None:
    for owner, typed_dict, wider in [
        (EngineConfig, EngineOptions, {"kv_memory": int | str | None}),
        (ServingConfig, ServingOptions, {}),
    ]:
        told = get_type_hints(typed_dict)
        assert list(told) == list(get_type_hints(owner))
        assert told == get_type_hints(owner) | wider


def test_the_options_of_a_server_are_keywords_of_an_async_engine() -> None:
    names = list(inspect.signature(AsyncEngine).parameters)
    assert names == ["llm", *(f.name for f in fields(ServingConfig))]
