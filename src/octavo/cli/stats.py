"""What `--stats` prints: how tokens were drawn, how a prompt met the cache, what memory there is,
the engine's figures.

All of it is read from RequestOutput, ModelInfo and `llm.stats()`, and said in words, with units;
--json has the names and plain numbers.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from octavo.cli.command import Flag
from octavo.cli.figures import duration, number, percent, size
from octavo.cli.screen import Screen
from octavo.errors import counted
from octavo.records import CacheReason, CacheRecord, CacheSource
from octavo.request import RequestOutput
from octavo.sampling_params import Sampling

if TYPE_CHECKING:
    from octavo.loaded_model import ModelInfo
    from octavo.serving.llm import LLM

Stats = Annotated[
    bool,
    Flag("--stats", help="Print what the cache did, and the engine's figures."),
]


def kv_line(info: ModelInfo) -> str:
    """The budget of the KV pages, and what it holds."""
    budget, tokens = info.kv_blocks * info.block_bytes, info.kv_blocks * info.block_size
    context = f"context {info.context:,}"
    if info.sliding_context is not None:
        context = f"a context of {info.sliding_context:,} that slides"
    return f"KV: {size(budget)} for up to {counted(tokens, 'token')}, {context}"


def say_memory(screen: Screen, info: ModelInfo) -> None:
    """Tell a terminal what memory there is before it is used."""
    if sys.stderr.isatty():
        screen.figures(kv_line(info))


def sampling_line(sampling: Sampling | None) -> str:
    """Say how tokens are drawn: what shapes the draw, by the names of the flags."""
    if sampling is None:
        return "sampling: none, beams are searched"
    values = asdict(sampling)
    shaping = [n for n, v in values.items() if n == "temperature" or v != getattr(Sampling(), n)]
    if sampling.greedy:
        shaping = [n for n in shaping if n.endswith(("temperature", "penalty"))]
    parts = [f"{name.replace('_', '-')} {number(values[name])}" for name in shaping]
    return f"sampling: {', '.join(parts)}"


def cache_line(output: RequestOutput) -> str:
    """Say what of the prompt was reused, and why not more."""
    record = output.cache
    prompt = counted(output.usage.prompt_tokens, "prompt token")
    line = f"cache: {record.matched_tokens:,} of {prompt}"
    line += (
        " reused" if record.source is CacheSource.NONE else f" reused from {_SOURCE[record.source]}"
    )
    if record.matched_tokens and record.saved_ms is not None:
        line += f", {number(record.saved_ms)} ms of prefill saved"
    if record.reason is not None:
        line += f"; {_why(record)}"
    if record.let_go_tokens:
        line += f"; {counted(record.let_go_tokens, 'token')} let go so far"
    return line


def stats_text(llm: LLM) -> str:
    """The engine's figures, a line for each thing: memory, blocks, steps, tokens."""
    figures: dict[str, Any] = llm.stats()
    used, kept = (size(figures[f"kv_bytes_{name}"]) for name in ("used", "kept"))
    evicted = counted(figures["kv_blocks_evicted"], "block")
    preempted = counted(figures["preempted"], "request")
    lines = [
        f"memory: weights {size(figures['weight_bytes'])}, KV {used} in use, {kept} kept for reuse",
        f"blocks: {percent(figures['kv_waste'])} of their slots held no token; {evicted} evicted, "
        f"{figures['kv_blocks_copied']:,} copied",
        f"tokens: {figures['computed_tokens']:,} computed, K and V of "
        f"{figures['kv_read_tokens']:,} read; {preempted} preempted",
    ]
    if figures["steps"]:
        lines.append(
            f"steps: {figures['steps']:,} in {duration(figures['step_seconds'])}, "
            f"{duration(figures['forward_seconds'])} of it in the model; 95 % of them took at most "
            f"{duration(figures['step_seconds_p95'])}"
        )
    return "\n".join(lines)


_SOURCE = {
    CacheSource.PROCESS: "this process",
    CacheSource.DISK: "disk",
    CacheSource.PEER: "another machine",
}

_REASONS = {
    CacheReason.COLD: "nothing was kept yet",
    CacheReason.DIVERGED: "nothing kept goes on with it",
    CacheReason.EVICTED: "what follows was kept, but its memory was needed or lay idle too long",
    CacheReason.DISABLED: "the prefix cache is off",
    CacheReason.SALT: "nothing was kept yet under its salt",
    CacheReason.WINDOW: "not all that windowed layers read",
    CacheReason.NEEDS_ALL_ROWS: "log-probabilities of the prompt need every token computed",
}


def _why(record: CacheRecord) -> str:
    assert record.reason is not None
    why = _REASONS.get(record.reason, "they do not fit")
    if record.known_tokens is not None:
        why = f"{record.known_tokens:,} are kept, but {why}"
    if not record.diverged_at:  # nowhere, or at the first token
        return f"{record.reason}: {why}"
    text = json.dumps(record.diverged_text, ensure_ascii=False)
    return f"{record.reason} at token {record.diverged_at:,}, {text}: {why}"
