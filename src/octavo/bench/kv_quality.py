"""Measures what a KV dtype does to a model's answers: perplexity, how far distributions move.

Comes in: a Runner for each dtype, which share one model, and tokens. The text goes through in
windows, each from an empty cache, chunk by chunk, so that logits never take more than a few
megabytes. Knows no files, no speed and no verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from octavo.batch import Asked, FloatArray, StepOutput, Want, make_batch
from octavo.engine.runner import Runner

CHUNK_BYTES = 64 << 20  # of one runner's logits at a time
LONGEST_WINDOW = 4096

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Quality:
    """One dtype beside the first, over every token of the text that something stands before."""

    perplexity: float
    perplexity_change: float  # 0.01: one hundredth more
    kl_mean: float  # nats, from the first dtype's distribution
    kl_999: float  # 99.9 % of tokens have at most this
    same_top: float  # share of tokens whose likeliest successor is the same
    tokens: int


@dataclass(frozen=True, slots=True)
class _Rows:
    """One dtype's rows of all chunks."""

    losses: list[Doubles]  # -log p(next token)
    divergences: list[Doubles]
    same: list[NDArray[np.bool_]]


def compare(
    runners: Mapping[str, Runner],
    tokens: Sequence[int],
    window: int,
    *,
    start: Sequence[int] = (),
    on_window: Callable[[int], None] = lambda _: None,
) -> dict[str, Quality]:
    """Measure every dtype against the first; `start` (BOS) stands before each window's tokens, and
    `on_window` is told how many tokens are done."""
    rows = {name: _Rows([], [], []) for name in runners}
    for begin in range(0, len(tokens), window):
        part = [*start, *tokens[begin : begin + window]]
        _compare_window(runners, part, rows)
        on_window(min(begin + window, len(tokens)))
    first = _perplexity(next(iter(rows.values())))
    return {name: _quality(found, first) for name, found in rows.items()}


def _compare_window(
    runners: Mapping[str, Runner], tokens: Sequence[int], rows: Mapping[str, _Rows]
) -> None:
    runner = next(iter(runners.values()))
    chunk = max(1, min(runner.max_rows, CHUNK_BYTES // (runner.vocab_size * 4)))
    for begin in range(0, len(tokens) - 1, chunk):
        end = min(begin + chunk, len(tokens) - 1)
        following = np.array(tokens[begin + 1 : end + 1])
        reference: FloatArray | None = None
        for name, each in runners.items():
            out = run_alone(each, tokens[begin:end], begin, range(end - begin), Want.LOGITS)
            found = _log_probabilities(out.logits[:, : each.vocab_size])
            reference = found if reference is None else reference
            rows[name].losses.append(-found[np.arange(end - begin), following].astype(np.float64))
            rows[name].same.append(found.argmax(axis=1) == reference.argmax(axis=1))
            gap = np.exp(reference) * (reference - found)
            rows[name].divergences.append(gap.sum(axis=1, dtype=np.float64))


def run_alone(
    runner: Runner, tokens: Sequence[int], first: int, rows: Sequence[int], want: Want
) -> StepOutput:
    """Run tokens from position `first` on, what is before them in the same pages; each of these
    rows wants this of the head."""
    tables = [[range(count)] for count in runner.num_blocks]
    return runner.run(make_batch([(tokens, first)], tables, rows, [Asked(want)] * len(rows)))


def _log_probabilities(logits: FloatArray) -> FloatArray:
    logits = logits - logits.max(axis=1, keepdims=True)
    total = np.exp(logits).sum(axis=1, dtype=np.float64)
    found: FloatArray = logits - np.log(total).astype(np.float32)[:, None]
    return found


def _perplexity(rows: _Rows) -> float:
    return float(np.exp(np.concatenate(rows.losses).mean()))


def _quality(rows: _Rows, first: float) -> Quality:
    divergences, perplexity = np.concatenate(rows.divergences), _perplexity(rows)
    return Quality(
        perplexity=perplexity,
        perplexity_change=perplexity / first - 1,
        kl_mean=float(divergences.mean()),
        kl_999=float(np.quantile(divergences, 0.999)),
        same_top=float(np.concatenate(rows.same).mean()),
        tokens=len(divergences),
    )
