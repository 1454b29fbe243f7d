"""A scheduler driven by hand, without a model: what runs is what the plan says, and the first
answer of each request goes on with 7s, the second with 8s and so on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from octavo.batch import StepOutput
from octavo.config import EngineConfig
from octavo.engine.engine import Engine
from octavo.engine.nouns import Branch, Request
from octavo.engine.step import Continuation, Decision, StepPlan
from octavo.engine.step_budget import StepBudget
from octavo.kernels import KV_FORMATS, default_isa
from octavo.kv_cache.cache import KVCache, Transfer
from octavo.kv_cache.groups import LayerGroup
from octavo.model import llama
from octavo.program.kv_bytes import PageFormats
from octavo.request import RequestOptions
from octavo.sampling_params import SamplingParams
from tests.engine.tiny_engine import NAMESPACE
from tests.tiny import TINY

PROGRAM = llama.build(TINY)
_BF16 = KV_FORMATS["bf16"]
BLOCK_SIZE = 4
Spans = list[tuple[int, int, int]]


class NoForward:
    """Stands where a runner stands: blocks are of one byte, and nothing runs."""

    isa = default_isa()
    vocab_size = 10**6
    mask_words = -(-vocab_size // 32)
    op_names: Sequence[str] = ()

    def __init__(self, num_blocks: int, max_rows: int, groups: Sequence[LayerGroup]) -> None:
        self.max_rows = max_rows
        self.groups = groups
        self.kv_budget = num_blocks * len(groups)

    def forward(self, plan: StepPlan) -> StepOutput:
        raise NotImplementedError("the test runs the plan")

    def transfer(self, transfers: Iterable[Transfer]) -> None:
        """Do nothing: there are no pages."""


class Driven:
    """Blocks of four tokens. Chunks are bounded by `max_rows` alone: there is no target of time."""

    def __init__(
        self, num_blocks: int, *, max_rows: int = 8, max_num_seqs: int = 8,
        groups: Sequence[LayerGroup] = (LayerGroup(1),), **options: Any,
    ) -> None:  # fmt: skip
        budget = StepBudget(
            PROGRAM, formats=PageFormats.everywhere(_BF16), weight_bytes=1, target_seconds=None,
            max_rows=max_rows, min_chunk=min(4, max_rows),
        )  # fmt: skip
        runner = NoForward(num_blocks, max_rows, groups)
        self.kv = KVCache(
            runner.groups, block_size=BLOCK_SIZE, budget=runner.kv_budget, max_rows=max_rows
        )
        config = EngineConfig.parse({"max_num_seqs": max_num_seqs, **options})
        self.engine = Engine(
            runner, self.kv, budget, config, NAMESPACE, context=10**6, eos_ids=frozenset()
        )
        self.requests = self.engine.requests
        self.computed = 0  # rows, of all steps

    def add(
        self, prompt: Sequence[int], max_tokens: int = 9, *, priority: int = 0, salt: str = "",
        **params: Any,
    ) -> Request:  # fmt: skip
        asked = SamplingParams.parse({"temperature": 0, "max_tokens": max_tokens, **params})
        return self.engine.add(prompt, asked, RequestOptions(priority, None, salt))

    def plan(self, only: Request | None = None) -> StepPlan:
        plan = self.engine.scheduler.schedule(only)
        self.engine.check_integrity()
        return plan

    def run(self, plan: StepPlan) -> Spans:
        """The rows of a plan ran: (request, begin, end) of each sequence. Answers part where they
        begin, and each ends at its length."""
        decisions = []
        for request in plan.requests:
            ends = {b: end for b, (_, end) in plan.spans.items() if b.request is request}
            drawn = [c for b, end in ends.items() if end == b.num_tokens for c in continuations(b)]
            decisions.append(Decision(request, request.decoding, drawn))
        self.computed += sum(end - begin for begin, end in plan.spans.values())
        self.engine.updater.update(plan, StepOutput.empty(), decisions)
        self.requests.take_result()
        self.engine.check_integrity()
        return [(branch.request.id, *span) for branch, span in plan.spans.items()]

    def step(self) -> Spans:
        return self.run(self.plan())

    def steps(self, count: int) -> list[Spans]:
        return [self.step() for _ in range(count)]

    def run_all(self) -> int:
        """The number of steps to the end of all."""
        count = 0
        while self.engine.has_unfinished:
            self.step()
            count += 1
            assert count < 1000, "requests that never end"
        return count


def continuations(branch: Branch) -> list[Continuation]:
    request = branch.request
    parts = len(request.branches) == 1 and not branch.num_completion_tokens
    answers = range(request.params.n) if parts else [branch.index]
    is_last = branch.num_completion_tokens + 1 == request.max_tokens
    return [Continuation(branch, i, 7 + i, end="length" if is_last else None) for i in answers]


def text(first: int, length: int) -> list[int]:
    """Tokens that no other text has."""
    return list(range(first * 1000, first * 1000 + length))
