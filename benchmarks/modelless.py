"""The real engine, scheduler and KV cache over a forward that computes nothing.

For benchmarks of bookkeeping: requests run step by step as they would over a model, and what they
occupy is read from the engine's StepRecords and its block tables. Knows no figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from octavo.batch import Batch, StepOutput, Want
from octavo.config import EngineConfig
from octavo.engine.engine import Engine
from octavo.engine.live import LiveRequests
from octavo.engine.nouns import Request
from octavo.engine.step import StepPlan
from octavo.engine.step_budget import StepBudget
from octavo.kernels import KV_FORMATS, default_isa
from octavo.kv_cache.block_names import Namespace
from octavo.kv_cache.cache import KVCache, Transfer
from octavo.kv_cache.groups import LayerGroup
from octavo.model import llama
from octavo.model.config import ModelConfig
from octavo.program.kv_bytes import PageFormats
from octavo.records import StepRecord
from octavo.request import RequestOptions
from octavo.sampling_params import SamplingParams

# Smallest shapes; only the prices of rows depend on them, and without a time target nothing does.
_SHAPES = ModelConfig(
    architecture="llama", num_layers=1, hidden_size=32, ffn_size=32, heads=1, kv_heads=1,
    head_dim=32, vocab_size=32, context=32, norm_eps=1e-5, rope_base=1e4, rotary_dim=32,
    rope_style="half", tied_head=True, qkv_bias=False,
)  # fmt: skip
_BF16 = KV_FORMATS["bf16"]
_NAMESPACE = Namespace(fingerprint="none", numerics="none", k_dtype="none", v_dtype="none")


class Head(Protocol):
    """What a forward answers, in place of a model."""

    vocab_size: int

    def answer(self, batch: Batch) -> StepOutput: ...


class Scripted:
    """Greedy answers that were written before: one request at a time takes the next token each
    step. With nothing written every answer is token 0."""

    def __init__(self, vocab_size: int = 2**17) -> None:
        self.vocab_size = vocab_size
        self._script: list[int] = []

    def write(self, tokens: Sequence[int]) -> None:
        self._script = list(reversed(tokens))

    def answer(self, batch: Batch) -> StepOutput:
        count = len(batch.output_rows)
        assert count <= 1 or not self._script, "a script is for one request at a time"
        token = self._script.pop() if count and self._script else 0
        return output(batch, argmax=np.full(count, token, np.int32))


class Drawn:
    """All tokens are equally likely, and beams get random continuations, likeliest first."""

    def __init__(self, vocab_size: int = 2**15, seed: int = 0) -> None:
        self.vocab_size = vocab_size
        self._random = np.random.default_rng(seed)
        self._logits = np.zeros(vocab_size, np.float32)  # (vocab,)

    def answer(self, batch: Batch) -> StepOutput:
        count, k = len(batch.output_rows), batch.top_k
        wanted = int((batch.wants == Want.LOGITS).sum())
        first = self._random.integers(0, self.vocab_size, (count, 1))
        uniforms = np.zeros(count) if batch.uniforms is None else batch.uniforms
        drawn = (uniforms * self.vocab_size).astype(np.int32)[batch.wants == Want.DRAW]
        logits = -np.sort(-self._random.standard_normal((count, k)).astype(np.float32), axis=1)
        return output(
            batch,
            argmax=np.zeros(count, np.int32),
            top_ids=((first + np.arange(k)) % self.vocab_size).astype(np.int32),
            top_logits=logits,
            logits=np.repeat(self._logits[None], wanted, axis=0),
            drawn=drawn,
            drawn_logits=np.zeros(len(drawn), np.float32),
        )


def output(batch: Batch, **arrays: np.ndarray) -> StepOutput:
    """A StepOutput of these arrays, and of none else."""
    count = len(batch.output_rows)
    given = {
        "log_sum_exp": np.full(count, np.log(2.0**15), np.float32),
        "top_ids": np.zeros((count, batch.top_k), np.int32),
        "top_logits": np.zeros((count, batch.top_k), np.float32),
        "logits": np.zeros((0, 1), np.float32),
        "hidden": np.zeros((0, 1), np.float32),
    }
    return StepOutput(**(given | arrays))


def distinct_prompt(number: int, length: int) -> list[int]:
    """A prompt that shares no token with that of another number."""
    return [number + 1] + [0] * (length - 1)


class _NoRunner:
    """Stands where the Runner stands; looks at the engine's tables while a forward would run: the
    blocks of the step are reserved, nothing has ended yet."""

    op_names: Sequence[str] = ()

    def __init__(self, head: Head, num_blocks: int, max_rows: int) -> None:
        self.isa, self.vocab_size = default_isa(), head.vocab_size
        self.mask_words = -(-head.vocab_size // 32)
        self.max_rows = max_rows
        self.groups, self.kv_budget = [LayerGroup(block_bytes=1)], num_blocks
        self.requests: LiveRequests | None = None
        self.seen = (0, 0)
        self._head = head

    def forward(self, plan: StepPlan) -> StepOutput:
        assert self.requests is not None
        table_blocks = sum(len(table.blocks[0]) for table in self.requests.tables())
        self.seen = len(self.requests.running), table_blocks
        return StepOutput.empty() if plan.batch is None else self._head.answer(plan.batch)

    def transfer(self, transfers: Iterable[Transfer]) -> None:
        """Do nothing: there are no pages."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One step, as it ran."""

    record: StepRecord
    num_running: int  # requests that had blocks
    table_blocks: int  # blocks in the tables of all sequences: as if none were shared


class Modelless:
    def __init__(
        self, head: Head, *, num_blocks: int, block_size: int, max_num_seqs: int, max_rows: int,
        context: int,
    ) -> None:  # fmt: skip
        """`context`: tokens of the longest request that may be offered."""
        self._runner = _NoRunner(head, num_blocks, max_rows)
        budget = StepBudget(
            llama.build(_SHAPES), formats=PageFormats.everywhere(_BF16), weight_bytes=1,
            target_seconds=None, max_rows=max_rows, min_chunk=1,
        )  # fmt: skip
        # Blocks of any size, and not only those that kernels run.
        kv = KVCache(
            self._runner.groups, block_size=block_size, budget=num_blocks, num_remembered=0
        )
        config = EngineConfig(max_num_seqs=max_num_seqs)
        self.engine = Engine(
            self._runner, kv, budget, config, _NAMESPACE, context=context, eos_ids=frozenset()
        )
        self._runner.requests = self.engine.requests

    def offer(self, prompt: Sequence[int], max_tokens: int, **params: object) -> Request:
        """A request that is greedy, unless `params` say how to draw."""
        asked = SamplingParams.parse({"max_tokens": max_tokens, "temperature": 0, **params})
        return self.engine.add(prompt, asked, RequestOptions())

    def steps(self) -> Iterator[Moment]:
        """Run until nothing is left. What raises in a step is raised here."""
        while self.engine.has_unfinished:
            result = self.engine.step()
            for request in result.finished:
                if request.error is not None:
                    raise request.error
            yield Moment(self.engine.records[-1], *self._runner.seen)

    def run(self) -> None:
        for _ in self.steps():
            pass
