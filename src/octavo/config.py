"""EngineConfig: every choice about running a model, parsed once and frozen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from octavo.errors import UsageError, counted, unknown_option
from octavo.values import check_flag, check_number, check_whole, is_whole, plain, settle

KVDtype = Literal["f32", "bf16"]
Activations = Literal["int8", "bf16"]
KV_DTYPES: tuple[KVDtype, ...] = ("f32", "bf16")
BLOCK_SIZES = (16, 32, 64)
_MOST_BYTES = 2**63
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """`context` and `kv_memory` are None where the model and the machine decide."""

    context: int | None = None  # tokens
    k_dtype: KVDtype = "bf16"
    v_dtype: KVDtype = "bf16"
    kv_memory: int | None = None  # bytes
    threads: int | None = None
    kv_cache: bool = True
    prefix_cache: bool = True  # without kv_cache there is nothing to share
    kv_idle: float = 600.0  # seconds after which the memory of kept blocks goes back; inf = never
    eviction: Literal["lru", "cost"] = "lru"
    block_size: int = 32
    activations: Activations | None = None  # rows that meet integer weights; None = int8
    weights: Literal["bf16", "f32"] | None = None  # None = as the file has them
    max_num_seqs: int = 64
    max_batch_tokens: int = 512  # rows of one step, at most
    max_waiting: int = 1024  # requests that a server lets queue
    step_ms: float | None = 100.0  # how long a step with a prefill may last; None = no target
    schedule: Literal["fcfs", "longest-prefix"] = "fcfs"
    fuse: bool = True
    profile: bool = False  # per-op counters

    @classmethod
    def parse(cls, options: Mapping[str, object]) -> EngineConfig:
        """From options by the names that they have in `LLM`. Unknown names and values out of range
        are errors that name themselves."""
        known = [f.name for f in fields(cls) if f.name not in ("k_dtype", "v_dtype")] + ["kv_dtype"]
        for name in options:
            if name not in known:
                raise unknown_option("option", name, known)
        values = dict(options)
        kv_dtype = values.pop("kv_dtype", None)
        if kv_dtype is not None:
            values["k_dtype"], values["v_dtype"] = parse_kv_dtype(kv_dtype)
        if values.get("kv_memory") is not None:
            values["kv_memory"] = parse_bytes("kv_memory", plain(values["kv_memory"]))
        return cls(**values)  # type: ignore[arg-type]  # __post_init__ checks

    def __post_init__(self) -> None:
        settle(self)
        check_whole("context", self.context, 1, 2**24)
        check_whole("threads", self.threads, 1, 1024)
        check_whole("max_num_seqs", self.max_num_seqs, 1, 4096)
        check_whole("max_batch_tokens", self.max_batch_tokens, 1, 8192)
        check_whole("max_waiting", self.max_waiting, 1, 2**24)
        for name in ("kv_cache", "prefix_cache", "fuse", "profile"):
            check_flag(name, getattr(self, name))
        check_number("kv_idle", self.kv_idle, 0)
        check_number("step_ms", self.step_ms, 0, above=True)
        _one_of("eviction", self.eviction, ("lru", "cost"))
        _one_of("schedule", self.schedule, ("fcfs", "longest-prefix"))
        _one_of("block_size", self.block_size, BLOCK_SIZES)
        _one_of("activations", self.activations, ("int8", "bf16"))
        _one_of("weights", self.weights, ("bf16", "f32"))


def check_context(context: int | None, model_context: int) -> None:
    """Raises UsageError where the model has fewer tokens; None asks for no certain number."""
    if context is not None and context > model_context:
        most = counted(model_context, "token")
        raise UsageError(f"context={context}: the model was trained for at most {most}")


def parse_kv_dtype(text: object) -> tuple[KVDtype, KVDtype]:
    """One dtype for both, or "k=f32,v=bf16" apart."""
    if isinstance(text, str):
        k, v = split_kv_dtype(text)
        if k in KV_DTYPES and v in KV_DTYPES:
            return k, v
    raise UsageError(
        f"kv_dtype={text!r}: expected one of {', '.join(KV_DTYPES)}, or k=…,v=… of them"
    )


def split_kv_dtype(text: str) -> tuple[str, str]:
    """The names for K and for V in "bf16", "k=f32,v=bf16" or "v=bf16,k=f32"."""
    apart = re.fullmatch(r"k=(\w+),v=(\w+)|v=(\w+),k=(\w+)", text)
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


def _one_of(name: str, value: object, choices: tuple[object, ...]) -> None:
    alike = [choice for choice in choices if type(choice) is type(value)]
    if value is not None and value not in alike:
        raise UsageError(f"{name}={value!r}: expected one of {', '.join(map(str, choices))}")
