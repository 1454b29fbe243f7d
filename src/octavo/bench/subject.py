"""Loads what benchmarks below the engine measure: a model, and a text as its tokens.

Comes in: a model's header and a text. Goes out: a Subject, and Runners that are as long as one of
its windows. Knows no figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from octavo.bench.kv_quality import LONGEST_WINDOW
from octavo.config import EngineConfig
from octavo.engine.runner import Runner, blocks_bytes
from octavo.kernels import native, thread_pool
from octavo.program.program import Program
from octavo.tokenizer import Tokenizer
from octavo.weights.model_header import ModelHeader
from octavo.weights.model_weights import ModelWeights, load_weights

MAX_ROWS = 256  # of a step


@dataclass(frozen=True, slots=True)
class Subject:
    """Says what is measured: a model, and the text as its tokens."""

    program: Program
    weights: ModelWeights
    pool: native.ThreadPool
    context: int  # tokens of a window, at most
    tokens: Sequence[int]
    start: Sequence[int]  # what the model has before each text

    @property
    def window(self) -> int:
        """Tokens of the longest sequence that is computed, `start` among them."""
        return min(self.context, LONGEST_WINDOW, len(self.start) + len(self.tokens))


def text_along() -> str:
    """The text that comes with the package: the beginning of A. Conan Doyle's Adventures of
    Sherlock Holmes, of 1891, which is in the public domain."""
    return files("octavo.bench").joinpath("sherlock_holmes.txt").read_text("utf-8")


def tokens_of(header: ModelHeader, text: str) -> tuple[list[int], list[int]]:
    """Return a text's tokens, and what the model has before each text: BOS, or nothing."""
    tokenizer = Tokenizer.from_spec(header.tokenizer_spec())
    spec = tokenizer.spec
    start = [spec.bos_id] if spec.add_bos and spec.bos_id is not None else []
    return tokenizer.encode(text, add_special=False), start


def load(
    header: ModelHeader,
    program: Program,
    config: EngineConfig,
    tokens: Sequence[int],
    start: Sequence[int],
    *,
    context: int,
) -> Subject:
    """Load the program's weights, for these tokens in windows of at most `context`."""
    pool = thread_pool(config.threads)
    weights = load_weights(header, program.weights(), pool, asked=config.weights)
    return Subject(program, weights, pool, min(context, header.config.context), tokens, start)


def runner_of(subject: Subject, options: Mapping[str, Any]) -> Runner:
    """Make what runs one sequence of a window; `options` are EngineConfig's."""
    config = EngineConfig.parse({**options})
    blocks = -(-subject.window // config.block_size)
    return Runner(
        subject.program, subject.weights, config,
        pool=subject.pool, context=subject.window,
        kv_budget=blocks_bytes(subject.program, config, blocks), max_rows=MAX_ROWS,
    )  # fmt: skip
