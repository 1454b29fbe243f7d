"""A busy engine in a pool that is too small for its requests, which keeps being filled up; what
each request gives is known from a run alone, without a cache between requests."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from itertools import count

import numpy as np

from octavo.engine.engine import Engine
from octavo.kernels import native
from octavo.request import Request, RequestOptions, TokenLogprobs
from tests.engine.tiny_engine import add, run, tiny_engine
from tests.tiny import TINY, tiny_model

POOL = native.ThreadPool(2)
MODEL = tiny_model(TINY, POOL)
EOS = range(0, TINY.vocab_size, 50)
TEXT = [int(t) for t in np.random.default_rng(1).integers(0, TINY.vocab_size, 60)]


@dataclass(frozen=True)
class Case:
    """One kind of request."""

    prompt: tuple[int, ...]
    params: tuple[tuple[str, object], ...]


def case(prompt: list[int], **params: object) -> Case:
    return Case(tuple(prompt), tuple(params.items()))


CASES = [
    case(TEXT[:40], max_tokens=6, temperature=0),
    case(TEXT[:45], max_tokens=8, n=3, seed=1, temperature=1.0, logprobs=1),
    case(TEXT[:33], max_tokens=5, prompt_logprobs=1, temperature=0),
    case(TEXT[10:30], max_tokens=9, seed=4, temperature=0.9, repetition_penalty=1.2),
    case(TEXT[:16], max_tokens=3, n=2, seed=9, temperature=1.0),
    case([*TEXT[:50], 1], max_tokens=4, seed=9, temperature=1.0),
    case([*TEXT[:20], 5, 6, 7], max_tokens=6, beam_width=3, n=2, ignore_eos=True),
    case(TEXT[:1], max_tokens=20, beam_width=2, length_penalty=0.5),
]
Answers = list[tuple[list[int], str | None, list[TokenLogprobs], float | None]]


def answers(request: Request) -> tuple[Answers, list[TokenLogprobs | None] | None]:
    each = [(s.tokens, s.finish_reason, s.logprobs, s.cumulative_logprob) for s in request.branches]
    return each, request.prompt_logprobs


@cache
def alone(case: Case) -> tuple[Answers, list[TokenLogprobs | None] | None]:
    engine = tiny_engine(MODEL, POOL, eos_ids=EOS, prefix_cache=False, step_ms=None)
    request = add(engine, case.prompt, **dict(case.params))
    run(engine)
    return answers(request)


def is_hurt(request: Request) -> bool:
    """Tell whether something broke it off."""
    broken = {"abort", "error"} & {s.finish_reason for s in request.branches}
    return request.error is not None or bool(broken)


class Busy:
    """Five requests at a time, of random kinds."""

    def __init__(self, seed: int, *, num_blocks: int = 8, **options: object) -> None:
        ticks = count()
        self.random = random.Random(seed)
        self.cases = CASES if options.get("kv_cache", True) else CASES[:6]  # else no beams
        self.engine: Engine = tiny_engine(
            MODEL, POOL, num_blocks=num_blocks, max_rows=64, block_size=16, max_num_seqs=6,
            eos_ids=EOS, step_ms=None, clock=lambda: next(ticks) / 1e3, **options,
        )  # fmt: skip
        self.live: dict[Request, Case] = {}
        self.num_right = 0
        self.num_preempted = 0

    def fill(self) -> None:
        while len(self.live) < 5:
            self.add()

    def add(self) -> Request:
        case = self.random.choice(self.cases)
        options = RequestOptions(
            priority=self.random.randrange(2),
            deadline_ms=self.random.choice([None, None, 150]),
        )
        request = add(self.engine, case.prompt, options, **dict(case.params))
        self.live[request] = case
        return request

    def check(self, *, may_hurt: int) -> list[Request]:
        """Everything agrees; requests that ended have the answers that they have alone, but for at
        most `may_hurt` of them, which come back."""
        self.engine.check_integrity()
        counts = self.engine.counts()
        ended = [r for r in self.live if r.finished]
        assert counts["running"] + counts["waiting"] == len(self.live) - len(ended)
        hurt = [r for r in ended if is_hurt(r)]
        assert len(hurt) <= may_hurt
        for request in ended:
            case = self.live.pop(request)
            self.num_preempted += request.num_preemptions
            assert all(s.finish_reason is not None for s in request.branches)
            late = any(s.finish_reason == "deadline" for s in request.branches)
            if not late and not is_hurt(request):
                assert answers(request) == alone(case)
                self.num_right += 1
        return hurt

    def drain(self) -> None:
        """Step to the end of all requests; then nobody holds anything."""
        for _ in range(400):
            if self.engine.has_unfinished:
                self.engine.step()
                self.check(may_hurt=0)
        assert not self.live, "a request that never ends"
        assert self.engine.counts()["kv_blocks_used"] == 0
