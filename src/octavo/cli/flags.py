"""The flags that several verbs share, as tables: one row for each field of SamplingParams and LLM.

`with_flags` adds them to a verb, which then gets `sampling` (SamplingParams), `options`
(RequestOptions) and `engine` (keywords of `LLM`) in place of forty parameters. Ranges and defaults
are those classes' own: only flags that were given are passed on.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any

import typer

from octavo.config import EngineConfig, split_kv_dtype
from octavo.errors import UsageError
from octavo.given_text import check_utf8
from octavo.request import RequestOptions
from octavo.sampling_params import SamplingParams

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A library name such as smollm2, or the path of a GGUF file.",
        show_default=False,
    ),
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Machine output: one JSON object, the last line of standard output.",
    ),
]
Context = Annotated[
    int | None,
    typer.Option(help="Tokens of a sequence; default: 1024, or all of a model that has less."),
]
KVDtype = Annotated[str, typer.Option(help="K and V in the cache: bf16, f16, f32, or k=…,v=….")]

# Bits of a value. Planning knows more dtypes than the engine runs.
KV_BITS = MappingProxyType({"f32": 32, "f16": 16, "bf16": 16})

_ESCAPES = MappingProxyType({"n": "\n", "t": "\t", "r": "\r", "\\": "\\"})
_METAVARS = {int: "N", float: "X", str: "TEXT", list[int]: "N", list[str]: "TEXT"}


@dataclass(frozen=True, slots=True)
class Flag:
    """`field` is its name in SamplingParams, RequestOptions or LLM."""

    field: str
    kind: Any
    help: str
    has_no: bool = False  # a switch that is also there as --no-FIELD, since its default may be on
    has_escapes: bool = False  # a backslash and a letter stand for a character

    def parameter(self) -> inspect.Parameter:
        name = self.field.replace("_", "-")
        spelling = f"--{name}/--no-{name}" if self.has_no else f"--{name}"
        metavar = None if self.kind is bool else _METAVARS[self.kind]
        option = typer.Option(spelling, metavar=metavar, help=self.help, show_default=False)
        plain = self.kind is bool and not self.has_no
        return inspect.Parameter(
            self.field,
            inspect.Parameter.KEYWORD_ONLY,
            default=False if plain else None,
            annotation=Annotated[bool if plain else self.kind | None, option],
        )


SAMPLING = (
    Flag("max_tokens", int, "Stop after this many tokens; default: at the end of the context."),
    Flag("temperature", float, "0 takes the likeliest token; default: the makers', else 0.7."),
    Flag("top_k", int, "Draw from this many likeliest tokens; 0 = all."),
    Flag(
        "top_p",
        float,
        "Draw from the likeliest tokens that make up this probability; default: the makers', else "
        "0.9.",
    ),
    Flag("min_p", float, "Leave out tokens below this share of the likeliest one's probability."),
    Flag("repetition_penalty", float, "Above 1 discourages tokens of the prompt and the answer."),
    Flag("presence_penalty", float, "Subtracted from the logits of tokens in the answer."),
    Flag("frequency_penalty", float, "The same, times how often the token stands there."),
    Flag("seed", int, "Makes the draw repeatable; default: drawn, and told in --json."),
    Flag(
        "stop",
        list[str],
        r"End before this text; \n, \t, \r and \\ in it are a newline, a tab, a carriage return, a "
        "backslash; it may name a control token, and be given again.",
        has_escapes=True,
    ),
    Flag("stop_token_ids", list[int], "End at this token id; may be given again."),
    Flag("ignore_eos", bool, "Go on past the model's end token."),
    Flag("logprobs", int, "Give log-probabilities of each token and this many others (--json)."),
    Flag("prompt_logprobs", int, "The same of the prompt's tokens; nothing is reused for it."),
    Flag("n", int, "Draw this many answers; they share the prompt."),
    Flag("beam_width", int, "Search for the likeliest answers with this many beams; gives --n."),
    Flag("length_penalty", float, "With beams: above 1 favours long answers, below 1 short ones."),
    Flag("early_stopping", bool, "With beams: end when that many answers are complete."),
)

# Of an answer that is drawn, and goes on from the one before.
CHAT_SAMPLING = tuple(
    flag
    for flag in SAMPLING
    if flag.field not in ("prompt_logprobs", "n", "beam_width", "length_penalty", "early_stopping")
)

REQUEST = (
    Flag("deadline_ms", int, "End after this many milliseconds, with what there is by then."),
)

ENGINE = (
    Flag("context", int, "Longest sequence in tokens; default: what the model and memory allow."),
    Flag("kv_dtype", str, "K and V in the cache: bf16, f32, or k=…,v=…."),
    Flag("kv_memory", str, "Memory for the cache, such as 4GiB; default: half of what is free."),
    Flag("threads", int, "Threads, at most 4 a core; default: the cores this process may use."),
    Flag("kv_cache", bool, "Keep K and V; without it all is computed for every token.", True),
    Flag("prefix_cache", bool, "Reuse K and V of equal beginnings; on by default.", True),
    Flag("kv_idle", float, "Seconds after which unused K and V are given up; default 600."),
    Flag("eviction", str, "Which are given up first when memory is short: lru or cost."),
    Flag("block_size", int, "Tokens in a block of the cache: 16, 32 or 64."),
    Flag("weights", str, "Convert weights to bf16 or f32; default: as the file has them."),
    Flag("activations", str, "What meets quantised weights: int8 or bf16."),
    Flag("max_batch_tokens", int, "Most tokens computed in one step."),
    Flag("step_ms", float, "How long a step with a prompt may last; default 100, inf = no limit."),
)

# Of engines that many requests are offered to.
BATCH_ENGINE = (
    *ENGINE,
    Flag("max_num_seqs", int, "Most answers that grow at once; default 64."),
    Flag("schedule", str, "Which request is next: fcfs or longest-prefix."),
)

Verb = Callable[..., None]


def with_flags(
    *,
    sampling: tuple[Flag, ...] = (),
    engine: tuple[Flag, ...] = (),
    request: tuple[Flag, ...] = (),
) -> Callable[[Verb], Verb]:
    """Give a verb these flags; it gets `sampling`, `engine` and `options` where it asks for some of
    them."""

    def wrap(verb: Verb) -> Verb:
        @functools.wraps(verb)
        def call(**values: Any) -> None:
            if sampling:
                given = _given(sampling, values)
                values["sampling"] = SamplingParams.parse(given)
            if request:
                values["options"] = RequestOptions(**_given(request, values))
            if engine:
                values["engine"] = _given(engine, values)
                _check_engine(values["engine"])
            verb(**values)

        own = inspect.signature(verb, eval_str=True).parameters.values()
        named = [p for p in own if p.name not in ("sampling", "options", "engine")]
        flags = [flag.parameter() for flag in (*sampling, *request, *engine)]
        call.__signature__ = inspect.Signature([*named, *flags])  # type: ignore[attr-defined]
        return call

    return wrap


def _given(flags: tuple[Flag, ...], values: dict[str, Any]) -> dict[str, Any]:
    """Take the flags out of `values`; those that were not given are left out."""
    taken = [(flag, values.pop(flag.field)) for flag in flags]
    return {
        flag.field: _as_said(flag, value)
        for flag, value in taken
        if not (value is None or value == [] or (value is False and not flag.has_no))  # 0 is given
    }


def _check_engine(given: dict[str, Any]) -> None:
    """Refuse before anything is pulled or read."""
    EngineConfig.parse(given)
    if given.get("prefix_cache") and given.get("kv_cache") is False:
        raise UsageError("--prefix-cache needs the KV cache: leave it or --no-kv-cache out")


def _as_said(flag: Flag, value: object) -> object:
    name = f"--{flag.field.replace('_', '-')}"
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str) and not text.isascii():
            check_utf8(name, text)
    if flag.has_escapes and isinstance(value, list):
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


def parse_kv_bits(text: str) -> tuple[int, int]:
    """Bits of a value of K and of V: "f16" for both, or "k=f32,v=bf16"."""
    k, v = split_kv_dtype(text)
    if k not in KV_BITS or v not in KV_BITS:
        raise UsageError(
            f"--kv-dtype {text!r}: expected one of {', '.join(KV_BITS)}, or k=…,v=… of them"
        )
    return KV_BITS[k], KV_BITS[v]
