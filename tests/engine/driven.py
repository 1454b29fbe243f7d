"""A scheduler driven by hand, without a model: what runs is what the plan says, and every answer
goes on with a token that the test chooses."""

from __future__ import annotations

from collections.abc import Sequence

from octavo.engine.scheduler import Scheduler, StepPlan
from octavo.engine.step_budget import StepBudget
from octavo.kernels import KV_FORMATS
from octavo.kv_cache.block_pool import BlockPool
from octavo.kv_cache.manager import KVCacheManager
from octavo.kv_cache.prefix_index import PrefixIndex
from octavo.model import llama
from octavo.request import Request, RequestOptions
from octavo.sampling_params import SamplingParams
from tests.engine.tiny_engine import NAMESPACE
from tests.tiny import TINY

PROGRAM = llama.build(TINY)
_BF16 = KV_FORMATS["bf16"]
BLOCK_SIZE = 4
Spans = list[tuple[int, int, int]]


class Driven:
    """Blocks of four tokens. Chunks are bounded by `max_rows` alone: there is no target of time."""

    def __init__(
        self, num_blocks: int, *, max_rows: int = 8, max_num_seqs: int = 8, max_pinned: int = 0,
        **options: bool,
    ) -> None:  # fmt: skip
        index = PrefixIndex(BLOCK_SIZE, num_remembered=num_blocks)
        self.pool = BlockPool(num_blocks, forget=index.forget, max_pinned=max_pinned)
        self.kv = KVCacheManager(self.pool, index, block_size=BLOCK_SIZE)
        budget = StepBudget(
            PROGRAM, k_format=_BF16, v_format=_BF16, weight_bytes=1, target_seconds=None,
            max_rows=max_rows, min_chunk=min(4, max_rows),
        )  # fmt: skip
        self.scheduler = Scheduler(self.kv, budget, max_num_seqs=max_num_seqs, **options)
        self.computed = 0  # rows, of all steps
        self._num_added = 0

    def add(
        self, prompt: Sequence[int], max_tokens: int = 9, *, priority: int = 0, salt: str = "",
        **params: object,
    ) -> Request:  # fmt: skip
        asked = SamplingParams.parse({"temperature": 0, **params})
        request = Request(
            self._num_added, asked, RequestOptions(priority, None, salt),
            tuple(prompt), seed=0, sampling=asked.sampling(), max_tokens=max_tokens,
        )  # fmt: skip
        self.scheduler.add(request, NAMESPACE)
        self._num_added += 1
        return request

    def plan(self) -> StepPlan:
        plan = self.scheduler.schedule()
        self.check()
        return plan

    def run(self, plan: StepPlan, token: int = 7) -> Spans:
        """The rows of a plan ran: (request, begin, end) of each branch. Answers part where they
        begin, and each ends at its length."""
        self.scheduler.commit_copies()
        for item in plan.scheduled:
            self.scheduler.commit(item)
            self.computed += item.end - item.begin
        for item in (i for i in plan.scheduled if i.samples):
            request, first = item.branch.request, item.branch
            parts = len(request.branches) == 1 and first.num_completion_tokens == 0
            others = range(1, request.params.n if parts else 1)
            grown = [first, *(self.scheduler.fork(first, i) for i in others)]
            for branch in grown:
                branch.tokens.append(token + branch.index)
                if branch.num_completion_tokens == request.max_tokens:
                    self.scheduler.finish_branch(branch, "length")
            if all(s.finish_reason for s in request.branches):
                self.scheduler.finish(request, "length")
        self.check()
        return [(s.branch.request.id, s.begin, s.end) for s in plan.scheduled]

    def step(self, token: int = 7) -> Spans:
        return self.run(self.plan(), token)

    def steps(self, count: int) -> list[Spans]:
        return [self.step() for _ in range(count)]

    def run_all(self) -> int:
        """The number of steps to the end of all."""
        count = 0
        while self.scheduler.requests:
            self.step()
            count += 1
            assert count < 1000, "requests that never end"
        return count

    def check(self) -> None:
        self.scheduler.check_integrity()


def text(first: int, length: int) -> list[int]:
    """Tokens that no other text has."""
    return list(range(first * 1000, first * 1000 + length))
