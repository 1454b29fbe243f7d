"""KV dtypes side by side, on one model's weights: quality, bytes, speed, and a verdict.

Comes in: a model and the tokens of a text. Runners are driven below the engine, all on the same
weights. Distributions are compared with rows of bf16 (`activations`), unless others are asked for:
with rows of int8 how these happen to round moves them more than the pages do. Speed is that of the
engine's own choice. Knows no file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import isfinite, isnan
from statistics import median
from typing import Any

from octavo.batch import Want
from octavo.bench.kv_quality import Quality, compare, run_alone
from octavo.bench.subject import MAX_ROWS, Subject, runner_of
from octavo.config import HAS_SINKS, EngineConfig, parse_kv_dtype
from octavo.engine.runner import Runner
from octavo.errors import counted
from octavo.kernels import KV_FORMATS
from octavo.planning.memory import kv_pages, page_formats
from octavo.program.program import Program
from octavo.weights.kv_verdicts import Verdict

REFERENCE = "bf16"
MIXED = "k=int8,v=int4"  # V bears fewer bits than K
DTYPES = (REFERENCE, *(name for name in KV_FORMATS if name != REFERENCE), MIXED)
BY_WINDOW = tuple(f"full={name},window={REFERENCE}" for name in ("int8", "int4"))
MOST_PERPLEXITY = 200.0  # of the reference; above it the text is none that the model speaks
LEAST_TOKENS = 1000  # of a verdict; with fewer one token more or less is a tenth of a percent
STEPS = 8  # of one timing of decode


@dataclass(frozen=True, slots=True)
class Measured:
    """One dtype."""

    dtype: str
    token_bytes: float  # of a sequence as long as a window, whole blocks
    sequences: int  # of that length that the memory holds
    decode_tps: float  # one sequence, behind such a window
    quality: Quality
    verdict: Verdict | None  # None: no smaller than the reference, or it tells nothing
    sinks: int = 0  # first tokens that stay bf16 where layers see them all

    def to_dict(self) -> dict[str, Any]:
        """Return the figures by name, None for those that are NaN or infinite."""
        found = asdict(self)
        found |= found.pop("quality")
        return {
            k: v if isinstance(v, str | None) or isfinite(v) else None for k, v in found.items()
        }


def dtypes_of(program: Program) -> tuple[str, ...]:
    """Return the dtypes to measure, the reference first."""
    both = 0 < len(program.full_groups) < len(program.groups)
    return DTYPES + BY_WINDOW if both else DTYPES


def no_verdict(reference: Quality) -> str | None:
    """Say why the figures of a text tell nothing about any dtype, if so it is."""
    if isnan(reference.perplexity):
        return f"logits are NaN with {REFERENCE} too"
    if reference.perplexity > MOST_PERPLEXITY:
        said = f"{reference.perplexity:,.0f}"
        return f"the perplexity of {REFERENCE} is {said}, so the model does not speak this text"
    if reference.tokens < LEAST_TOKENS:
        return f"{counted(reference.tokens, 'token')} tell too little"
    return None


def judge(dtype: str, quality: Quality, reference: Quality) -> Verdict | None:
    """Give a verdict on a dtype smaller than the reference. f32 is none: where it is far away, it
    is the reference that is off."""
    k, v = parse_kv_dtype(dtype).full
    bits, of_reference = KV_FORMATS[k].bits + KV_FORMATS[v].bits, 2 * KV_FORMATS[REFERENCE].bits
    if bits >= of_reference or no_verdict(reference) is not None:
        return None
    if quality.perplexity_change <= 0.005 and quality.same_top >= 0.98:
        return "safe"
    if quality.perplexity_change <= 0.03 and quality.kl_mean <= 0.04:
        return "usable"
    return "not safe"


def measure(
    subject: Subject,
    options: Mapping[str, Any],
    *,
    memory: int,
    rounds: int,
    on_tokens: Callable[[int], None] = lambda _: None,
) -> list[Measured]:
    """Measure every dtype; `options` are EngineConfig's, `memory` the bytes that sequences fill."""
    dtypes = dtypes_of(subject.program)
    exact = dict(options)
    if options.get("activations") is None and "a32" in subject.weights.row_kinds(None).values():
        exact["activations"] = "bf16"
    quality = compare(
        {dtype: runner_of(subject, options_of(exact, dtype)) for dtype in dtypes},
        subject.tokens,
        subject.window - len(subject.start),
        start=subject.start,
        on_window=on_tokens,
    )
    speed = decode_speeds(
        {dtype: runner_of(subject, options_of(options, dtype)) for dtype in dtypes},
        subject,
        rounds,
    )
    found = []
    for dtype in dtypes:
        mine = options_of(options, dtype)
        taken, sinks = window_bytes(subject, mine), EngineConfig.parse(mine).kv_sink_tokens
        judged = judge(dtype, quality[dtype], quality[REFERENCE])
        found.append(
            Measured(
                dtype,
                taken / subject.window,
                memory // taken,
                speed[dtype],
                quality[dtype],
                judged,
                sinks,
            )
        )
    return found


def options_of(options: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """Return the options with this dtype; of sinks only where it has some."""
    found = {**options, "kv_dtype": dtype}
    if HAS_SINKS not in parse_kv_dtype(dtype).full:
        found.pop("kv_sinks", None)
    return found


def decode_speeds(runners: Mapping[str, Runner], subject: Subject, rounds: int) -> dict[str, float]:
    """Tokens a second of the last token of a window, over and over; the dtypes in turns."""
    tokens = [*subject.start, *subject.tokens][: subject.window]
    for runner in runners.values():
        for begin in range(0, len(tokens), MAX_ROWS):
            part = tokens[begin : begin + MAX_ROWS]
            run_alone(runner, part, begin, [len(part) - 1], Want.ARGMAX)
    seconds: dict[str, list[float]] = {dtype: [] for dtype in runners}
    for _ in range(rounds):
        for dtype, runner in runners.items():
            began = time.perf_counter()
            for _ in range(STEPS):
                run_alone(runner, tokens[-1:], len(tokens) - 1, [0], Want.ARGMAX)
            seconds[dtype].append((time.perf_counter() - began) / STEPS)
    return {dtype: 1 / median(each) for dtype, each in seconds.items()}


def window_bytes(subject: Subject, options: Mapping[str, Any]) -> int:
    """Return the bytes of K and V that an engine plans for a sequence of a window; a windowed group
    also holds what a step writes."""
    config = EngineConfig.parse({**options})
    formats = page_formats(subject.program, config)
    pages = kv_pages(subject.program, config.block_size, formats, max_rows=config.max_batch_tokens)
    return pages.bytes_of(subject.window)
