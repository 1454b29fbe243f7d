"""One model with other numbers of KV heads, each converted and measured: memory, speed, perplexity.

Comes in: a model's path and numbers of KV heads. Models are made in a folder that goes away, of the
same weights as bf16, and run one after the other, below the engine. Knows no flags.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octavo.bench.kv_dtype import decode_speeds, window_bytes
from octavo.bench.kv_quality import compare
from octavo.bench.subject import Subject, load, runner_of, text_along, tokens_of
from octavo.config import EngineConfig
from octavo.convert.convert import convert
from octavo.engine.runner import Runner
from octavo.weights.model_header import ModelHeader, read_header

WINDOW = 2048  # tokens of the sequences that are measured
TOKENS = 2 * WINDOW  # of the text that perplexity is of


@dataclass(frozen=True, slots=True)
class HeadsMeasured:
    """One number of KV heads."""

    kv_heads: int
    heads: int
    window_bytes: int  # K and V of a sequence of `tokens` of a window
    sequences: int  # of that length that the memory holds
    decode_tps: float  # one sequence, behind such a window
    perplexity: float
    tokens: int  # of a window

    @property
    def kind(self) -> str:
        """Return what papers call it: every head with K and V of its own, groups of heads, or one K
        and V for all."""
        if self.kv_heads == self.heads:
            return "MHA"
        return "MQA" if self.kv_heads == 1 else f"GQA-{self.kv_heads}"


def measure(
    source: Path,
    numbers: Sequence[int],
    options: Mapping[str, Any],
    *,
    memory: int,
    rounds: int,
    on_model: Callable[[int], None] = lambda _: None,
) -> list[HeadsMeasured]:
    """Measure every number of KV heads; `options` are EngineConfig's, `memory` the bytes that
    sequences fill."""
    found = []
    with tempfile.TemporaryDirectory(prefix="octavo-kv-heads-") as folder:
        for number in numbers:
            on_model(number)
            path = Path(folder) / f"kv-heads-{number}"
            convert(source, path, kv_heads=number)
            found.append(_measured(read_header(path), options, memory, rounds))
    return found


def perplexity(path: Path, options: Mapping[str, Any]) -> float:
    """Return a model's perplexity over the first tokens of the text that comes along."""
    header = read_header(path)
    subject = _subject(header, options)
    return _perplexity(runner_of(subject, options), subject)


def _measured(
    header: ModelHeader, options: Mapping[str, Any], memory: int, rounds: int
) -> HeadsMeasured:
    subject = _subject(header, options)
    runner = runner_of(subject, options)
    taken = window_bytes(subject, options)
    return HeadsMeasured(
        kv_heads=header.config.kv_heads,
        heads=header.config.heads,
        window_bytes=taken,
        sequences=memory // taken,
        perplexity=_perplexity(runner, subject),
        decode_tps=decode_speeds({"": runner}, subject, rounds)[""],
        tokens=subject.window,
    )


def _subject(header: ModelHeader, options: Mapping[str, Any]) -> Subject:
    tokens, start = tokens_of(header, text_along())
    config = EngineConfig.parse({**options})
    return load(header, header.program(), config, tokens[:TOKENS], start, context=WINDOW)


def _perplexity(runner: Runner, subject: Subject) -> float:
    window = subject.window - len(subject.start)
    found = compare({"": runner}, subject.tokens, window, start=subject.start)
    return found[""].perplexity
