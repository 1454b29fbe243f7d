"""The flags that several verbs share: options of SamplingParams, RequestOptions and LLM.

`with_flags` adds them to a verb, which then gets `sampling` (SamplingParams), `options`
(RequestOptions), `engine` (keywords of `LLM`), `server` (of ServerConfig) and `load` (of
LoadConfig) in place of forty parameters. Only flags that were given are passed on: ranges and
defaults are those classes' own.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from types import MappingProxyType
from typing import Annotated, Any

from octavo.cli.command import Argument, Flag
from octavo.config import EngineConfig
from octavo.errors import UsageError
from octavo.given_text import check_utf8
from octavo.kernels import KV_FORMATS
from octavo.options import Option, options_of
from octavo.request import RequestOptions
from octavo.sampling_params import SamplingParams

Model = Annotated[
    str,
    Argument(
        metavar="MODEL",
        help="A library name such as smollm2, the path of a GGUF file or a directory, or "
        "hf:owner/name[@revision][:file.gguf].",
    ),
]
AsJson = Annotated[
    bool,
    Flag(
        "--json",
        help="Machine output: one JSON object, the last line of standard output.",
    ),
]
Context = Annotated[
    int | None,
    Flag(help="Tokens of a sequence; default: 1024, or all of a model that has less."),
]
KVDtype = Annotated[
    str,
    Flag(
        help=f"K and V in the cache: {', '.join(KV_FORMATS)}, k=…,v=…, or full=…,window=…; f16 of "
        "other engines takes as much as bf16."
    ),
]
SlidingContext = Annotated[
    int | None,
    Flag(help="Let sequences go on without end: a token sees the last of so many, and the sinks."),
]
Sinks = Annotated[
    int | None,
    Flag(
        help="First tokens that every token of a sliding context sees; default: a block; 0 = none."
    ),
]
KVSinks = Annotated[
    int | None,
    Flag(
        help="First tokens that stay bf16 beside int4, up to the end of their block; 0 = none; "
        "default 4 where K is int4."
    ),
]

_ESCAPES = MappingProxyType({"n": "\n", "t": "\t", "r": "\r", "\\": "\\"})
_ESCAPES_HELP = r"; \n, \t, \r and \\ in it are a newline, a tab, a carriage return, a backslash"
_METAVARS = {int: "N", float: "X", str: "TEXT"}


def flags_of(owner: type) -> tuple[Option, ...]:
    return tuple(each for each in options_of(owner) if each.flag is not None)


def without(flags: tuple[Option, ...], *names: str) -> tuple[Option, ...]:
    return tuple(each for each in flags if each.name not in names)


SAMPLING = flags_of(SamplingParams)
# Of an answer that is drawn, and goes on from the one before.
CHAT_SAMPLING = without(
    SAMPLING, "prompt_logprobs", "n", "beam_width", "length_penalty", "early_stopping"
)
REQUEST = flags_of(RequestOptions)
# Of engines that many requests are offered to.
BATCH_ENGINE = flags_of(EngineConfig)
ENGINE = without(BATCH_ENGINE, "max_num_seqs", "schedule")

Verb = Callable[..., None]


def with_flags(
    *,
    sampling: tuple[Option, ...] = (),
    engine: tuple[Option, ...] = (),
    request: tuple[Option, ...] = (),
    server: tuple[Option, ...] = (),
    load: tuple[Option, ...] = (),
) -> Callable[[Verb], Verb]:
    """Give a verb these flags; it gets `sampling`, `engine`, `options`, `server` and `load` where
    it asks for some of them."""

    def wrap(verb: Verb) -> Verb:
        @functools.wraps(verb)
        def call(**values: Any) -> None:
            if sampling:
                given = _given(sampling, values)
                values["sampling"] = SamplingParams.parse(given)
            if request:
                values["options"] = RequestOptions(**_given(request, values))
            if server:
                values["server"] = _given(server, values)
            if load:
                values["load"] = _given(load, values)
            if engine:
                values["engine"] = _given(engine, values)
                _check_engine(values["engine"])
            verb(**values)

        own = inspect.signature(verb, eval_str=True).parameters.values()
        tables = ("sampling", "options", "engine", "server", "load")
        named = [p for p in own if p.name not in tables]
        flags = [_parameter(flag) for flag in (*sampling, *request, *server, *load, *engine)]
        call.__signature__ = inspect.Signature([*named, *flags])  # type: ignore[attr-defined]
        return call

    return wrap


def _parameter(flag: Option) -> inspect.Parameter:
    """Return what the flag is made of. One that may be on by default is also there as --no-…;
    where an option parses what it is given, a text is typed."""
    name, has_no = _flag_name(flag), _has_no(flag)
    kind: Any = flag.kind if flag.parse is None else str
    said = f"{flag.help}{flag.flag}"
    if flag.item is not None:
        kind = list[flag.item]  # type: ignore[name-defined]  # a value
        said += f"{_ESCAPES_HELP if flag.escapes else ''}; may be given again"
    option = Flag(
        f"{name}/--no-{name[2:]}" if has_no else name,
        help=f"{said}.",
        shows_default=False,
    )
    is_switch = kind is bool and not has_no
    return inspect.Parameter(
        flag.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=False if is_switch else None,
        annotation=Annotated[bool if is_switch else kind | None, option],
    )


def _has_no(flag: Option) -> bool:
    return flag.kind is bool and flag.default is not False


def _flag_name(flag: Option) -> str:
    return f"--{flag.name.replace('_', '-')}"


def _given(flags: tuple[Option, ...], values: dict[str, Any]) -> dict[str, Any]:
    """Take the flags out of `values`; those that were not given are left out."""
    found = {}
    for flag in flags:
        value = values.pop(flag.name)
        is_off = value is False and not _has_no(flag)
        if value is not None and value != [] and not is_off:  # 0 is given
            found[flag.name] = _as_said(flag, value)
    return found


def _check_engine(given: dict[str, Any]) -> None:
    """Refuse before anything is pulled or read."""
    EngineConfig.parse(given)
    if given.get("prefix_cache") and given.get("kv_cache") is False:
        raise UsageError("--prefix-cache needs the KV cache: leave it or --no-kv-cache out")


def _as_said(flag: Option, value: object) -> object:
    name = _flag_name(flag)
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str) and not text.isascii():
            check_utf8(name, text)
    if flag.escapes and isinstance(value, list):
        return [_unescaped(name, text) for text in value]
    return value


def _unescaped(name: str, text: str) -> str:
    def character(escape: re.Match[str]) -> str:
        if escape[1] not in _ESCAPES:
            raise UsageError(
                rf"{name} {text}: {escape[0]} is no escape: there are \n, \t, \r, and \\ for a "
                "backslash"
            )
        return _ESCAPES[escape[1]]

    return re.sub(r"\\(.?)", character, text, flags=re.DOTALL)


def planned_config(kv_dtype: str, **options: int | None) -> EngineConfig:
    """Return what an engine that keeps K and V so would be started with. What others keep as f16
    is as large as bf16."""
    kept = re.sub(r"\bf16\b", "bf16", kv_dtype)
    return EngineConfig.parse({"kv_dtype": kept, **options})
