"""EngineConfig: every choice about running a model, parsed once and frozen.

An option is added in its line, and for type checkers in EngineOptions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypedDict, get_args

from octavo.errors import UsageError, counted
from octavo.kernels import KV_FORMATS, KVFormat, native
from octavo.options import check, described, option, parse_options
from octavo.values import is_whole

Activations = Literal["int8", "bf16"]
PackedWeights = Literal["w8", "w4", "bf16", "f32"]
Eviction = Literal["lru", "cost"]
Schedule = Literal["fcfs", "longest-prefix"]
BLOCK_SIZES = (16, 32, 64)
SINKS_DTYPE = "bf16"  # of K and V of sinks
HAS_SINKS = "int4"  # coarse enough to want some
_SINKS = 4  # tokens, where K is so coarse, unless kv_sinks says how many
PACKED_WEIGHTS: tuple[PackedWeights, ...] = get_args(PackedWeights)
_MOST_BYTES = 2**63
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class KVDtypes(NamedTuple):
    """The dtypes of K and of V in layers whose rows see all tokens, and in those with a window."""

    full: tuple[str, str]
    window: tuple[str, str]


def parse_kv_dtype(text: object) -> KVDtypes:
    """Read one dtype for all, "k=f32,v=bf16", or "full=int8,window=bf16"."""
    if isinstance(text, str):
        k, v = _split(text, "k", "v")
        full, window = _split(text, "full", "window")
        found = KVDtypes((k, v), (k, v)) if full == text else KVDtypes((full,) * 2, (window,) * 2)
        if all(name in KV_FORMATS for pair in found for name in pair):
            return found
    raise UsageError(
        f"kv_dtype={text!r}: expected one of {', '.join(KV_FORMATS)}, or k=…,v=… or "
        "full=…,window=… of them"
    )


def join_kv_dtype(dtypes: KVDtypes) -> str:
    """Return the one spelling of what `parse_kv_dtype` read."""
    (k, v), (window, _) = dtypes
    if dtypes.full != dtypes.window:
        return f"full={k},window={window}"
    return k if k == v else f"k={k},v={v}"


def _split(text: str, one: str, other: str) -> tuple[str, str]:
    """Return what both names are said to be, in either order; the text for both if it says none."""
    apart = re.fullmatch(rf"{one}=(\w+),{other}=(\w+)|{other}=(\w+),{one}=(\w+)", text)
    if apart is None:
        return text, text
    return apart[1] or apart[4], apart[2] or apart[3]


def parse_bytes(name: str, value: object) -> int:
    """Bytes from a number or from "512M", "1.5GiB"; powers of 1024."""
    if is_whole(value) and 0 < value < _MOST_BYTES:
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", str(value).strip(), re.IGNORECASE)
    size = float(match[1]) * _UNITS[match[2].upper()] if match else 0
    if not 1 <= size < _MOST_BYTES:
        raise UsageError(f"{name}={value!r}: expected bytes, such as 512M or 4GiB")
    return int(size)


@described
@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Every choice about running a model; where one is None the model and the machine decide."""

    context: int | None = option(
        None, "Longest sequence in tokens; default: what the model and memory allow", 1, 2**24
    )
    kv_dtype: str = option(
        "bf16",
        f"K and V in the cache: {', '.join(KV_FORMATS)}, k=…,v=…, or full=…,window=…",
        parse=lambda _, text: join_kv_dtype(parse_kv_dtype(text)),
    )
    sliding_context: int | None = option(
        None,
        "Let sequences go on without end: a token sees the last of so many, and the sinks",
        2 * min(BLOCK_SIZES),
        2**24,
    )
    sinks: int | None = option(
        None,
        "First tokens that every token of a sliding context sees; default: a block; 0 = none",
        0,
        2**24,
    )
    kv_sinks: int | None = option(
        None,
        "First tokens that stay bf16 beside int4, up to the end of their block; 0 = none; default "
        "4 where K is int4",
        0,
        max(BLOCK_SIZES),
    )
    kv_memory: int | None = option(
        None,
        "Memory for the cache, such as 4GiB; default: half of what is free beside the weights",
        parse=parse_bytes,
    )
    threads: int | None = option(
        None, "Threads, at most 4 a core; default: the cores this process may use", 1, 1024
    )
    kv_cache: bool = option(True, "Keep K and V; without it all is computed for every token")
    prefix_cache: bool = option(True, "Reuse K and V of equal beginnings; on by default")
    kv_idle: float = option(
        600.0, "Seconds of rest after which K and V are given up; default 600, inf = never", 0
    )
    eviction: Eviction = option(
        "lru", "Which are given up first when memory is short: lru, or cost: what is cheap to redo"
    )
    block_size: int = option(
        32, "Tokens in a block of the cache: 16, 32 or 64", choices=BLOCK_SIZES
    )
    weights: PackedWeights | None = option(
        None, "Weights as w8 or w4 (quantised at load), bf16 or f32; default: as the file has them"
    )
    activations: Activations | None = option(
        None, "What meets quantised weights: int8, or bf16, exact to 16 bits; default int8"
    )
    pack_cache: bool | None = option(
        None,
        "Keep packed weights in $OCTAVO_HOME and map them at the next start; default: of models "
        "over 64 MB",
    )
    max_batch_tokens: int = option(512, "Most tokens computed in one step", 1, 8192)
    step_ms: float | None = option(
        100.0, "How long a step with a prompt may last; default 100, inf = no limit", 0, above=True
    )
    max_num_seqs: int = option(64, "Most answers that grow at once; default 64", 1, 4096)
    schedule: Schedule = option(
        "fcfs", "Which request is next: fcfs or longest-prefix, which shares most with the cache"
    )
    fuse: bool = option(True, "Run fused ops; without it all ops as the model has them", flag=None)
    profile: bool = option(False, "Count nanoseconds by op in the records of steps", flag=None)

    @property
    def kv_dtypes(self) -> KVDtypes:
        return parse_kv_dtype(self.kv_dtype)

    @property
    def kv_formats(self) -> tuple[tuple[KVFormat, KVFormat], tuple[KVFormat, KVFormat]]:
        """Return the formats of `kv_dtypes`."""
        full, window = ((KV_FORMATS[k], KV_FORMATS[v]) for k, v in self.kv_dtypes)
        return full, window

    @property
    def sliding_sinks(self) -> int:
        """Return how many of a sliding context's tokens are a sequence's first ones."""
        return self.block_size if self.sinks is None else self.sinks

    def longest_sequence(self, model_context: int) -> int:
        """Return how many tokens a sequence of a model may have that was trained for so many."""
        return model_context if self.sliding_context is None else native.MAX_CONTEXT

    @property
    def sink_format(self) -> KVFormat:
        return KV_FORMATS[SINKS_DTYPE]

    @property
    def kv_sink_tokens(self) -> int:
        """Return how many tokens of a sequence stay bf16 where layers see them all: the whole first
        block, or none."""
        k, v = self.kv_dtypes.full
        wanted = (_SINKS if k == HAS_SINKS else 0) if self.kv_sinks is None else self.kv_sinks
        return self.block_size if wanted and HAS_SINKS in (k, v) else 0

    @property
    def page_dtypes(self) -> tuple[str, str]:
        """Return what pages of K and of V are named by: where tokens lie depends on how many stay
        bf16."""
        sinks = f"+{self.kv_sink_tokens}" if self.kv_sink_tokens else ""
        (k, v), (window_k, window_v) = self.kv_dtypes
        if (k, v) == (window_k, window_v):
            return k + sinks, v + sinks
        return f"full={k}{sinks},window={window_k}", f"full={v}{sinks},window={window_v}"

    @classmethod
    def parse(cls, options: Mapping[str, object]) -> EngineConfig:
        """Make a config from options by name. Unknown names and values out of range are errors that
        name themselves."""
        return parse_options(cls, "option", options)

    def __post_init__(self) -> None:
        check(self)
        self._check_sliding()
        if not self.kv_sinks:
            return
        if not self.kv_sink_tokens:
            raise UsageError(
                f"kv_sinks={self.kv_sinks}: only {HAS_SINKS} has sinks, where layers see all "
                f"tokens, and kv_dtype is {self.kv_dtype}: expected kv_dtype {HAS_SINKS}, or "
                f"k=…,v={HAS_SINKS}"
            )
        if self.kv_sinks > self.block_size:
            raise UsageError(
                f"kv_sinks={self.kv_sinks}: expected at most a block, which has "
                f"{self.block_size} tokens"
            )

    def _check_sliding(self) -> None:
        size, tokens, sinks = self.block_size, self.sliding_context, self.sliding_sinks
        if tokens is None:
            if self.sinks is not None:
                raise UsageError(
                    f"sinks={sinks}: they are those of a sliding context, and there is none"
                )
            return
        if tokens < 2 * size or tokens % size:
            raise UsageError(
                f"sliding_context={tokens}: expected whole blocks of {size} tokens, at least two"
            )
        if sinks % size or sinks > tokens - size:
            raise UsageError(
                f"sinks={sinks}: expected whole blocks of {size} tokens, at most "
                f"{tokens - size:,}, a block less than the sliding context"
            )
        if not self.kv_cache:
            raise UsageError(
                f"sliding_context={tokens} needs the KV cache: leave kv_cache=False out"
            )
        if self.kv_sink_tokens:
            raise UsageError(
                f"sliding_context={tokens}: with kv_dtype {self.kv_dtype} the first tokens stay "
                "bf16, which a sliding context does not have: add kv_sinks=0, or choose int8"
            )


class EngineOptions(TypedDict, total=False):
    """The options of EngineConfig for type checkers, as they may be given."""

    context: int | None
    kv_dtype: str
    sliding_context: int | None
    sinks: int | None
    kv_sinks: int | None
    kv_memory: int | str | None
    threads: int | None
    kv_cache: bool
    prefix_cache: bool
    kv_idle: float
    eviction: Eviction
    block_size: int
    weights: PackedWeights | None
    activations: Activations | None
    pack_cache: bool | None
    max_batch_tokens: int
    step_ms: float | None
    max_num_seqs: int
    schedule: Schedule
    fuse: bool
    profile: bool


@described
@dataclass(frozen=True, slots=True)
class ServingConfig:
    """Choices about many callers of one engine."""

    max_waiting: int = option(
        1024, "Requests that may wait; beyond them one is refused", 1, 2**24, flag=None
    )
    pin_memory: float = option(
        0.25, "Part of the KV memory that pins may hold; default 0.25", 0, 1, flag=None
    )

    def __post_init__(self) -> None:
        check(self)


class ServingOptions(TypedDict, total=False):
    """The options of ServingConfig for type checkers."""

    max_waiting: int
    pin_memory: float


def check_context(context: int | None, model_context: int, why_no_longer: str = "") -> None:
    """Raises UsageError where the model has fewer tokens; None asks for no certain number."""
    if context is not None and context > model_context:
        most = counted(model_context, "token")
        why = f"; {why_no_longer}" if why_no_longer else ""
        raise UsageError(f"context={context}: the model was trained for at most {most}{why}")
