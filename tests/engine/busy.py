"""A busy engine in a pool that is too small for its requests, which keeps being filled up; what
each request gives is known from a run alone, without a cache between requests."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from itertools import count
from typing import Any

import numpy as np

from octavo.engine.decoding.pooled import embedding
from octavo.engine.engine import Engine
from octavo.engine.nouns import Request
from octavo.kernels import native
from octavo.request import RequestOptions
from tests.engine.tiny_engine import add, answered, tiny_engine
from tests.sums import Sums
from tests.tiny import TINY, tiny_model

POOL = native.ThreadPool(1)
MODEL = tiny_model(TINY, POOL)
EOS = range(0, TINY.vocab_size, 50)
TEXT = [int(t) for t in np.random.default_rng(1).integers(0, TINY.vocab_size, 60)]
SUMS = Sums(2, 6)
_OPTIONS = ("pooling", "constraint")  # of a case; the others are its SamplingParams
CASES: list[tuple[list[int], dict[str, Any]]] = [
    (TEXT[:40], {"max_tokens": 6}),
    (TEXT[:45], {"max_tokens": 8, "n": 3, "seed": 1, "temperature": 1.0, "logprobs": 1}),
    (TEXT[:33], {"max_tokens": 5, "prompt_logprobs": 1}),
    (TEXT[10:30], {"max_tokens": 9, "seed": 4, "temperature": 0.9, "repetition_penalty": 1.2}),
    (TEXT[:16], {"max_tokens": 3, "n": 2, "seed": 9, "temperature": 1.0}),
    (TEXT[:38], {"max_tokens": 9, "constraint": SUMS}),
    (TEXT[:41], {"max_tokens": 9, "n": 3, "seed": 2, "temperature": 1.0, "constraint": SUMS}),
    ([*TEXT[:50], 1], {"max_tokens": 4, "seed": 9, "temperature": 1.0}),
    (TEXT[:50], {"pooling": "last"}),
    (TEXT[:47], {"pooling": "mean"}),
    ([*TEXT[:20], 5, 6, 7], {"max_tokens": 6, "beam_width": 3, "n": 2, "ignore_eos": True}),
    (TEXT[:1], {"max_tokens": 20, "beam_width": 2, "length_penalty": 0.5}),
]


def answers(request: Request) -> object:
    """All that a request gives, to be compared."""
    each = [(s.tokens, s.finish_reason, s.logprobs, s.cumulative_logprob) for s in request.branches]
    vector = embedding(request)
    return each, request.prompt_logprobs, None if vector is None else vector.tobytes()


@cache
def alone(case: int) -> object:
    engine = tiny_engine(MODEL, POOL, eos_ids=EOS, prefix_cache=False, step_ms=None)
    return answers(answered(engine, *_asked(case, RequestOptions()), **_params(case)))


def _asked(case: int, options: RequestOptions) -> tuple[list[int], RequestOptions]:
    prompt, params = CASES[case]
    own: dict[str, Any] = {name: params.get(name) for name in _OPTIONS}
    return prompt, replace(options, **own)


def _params(case: int) -> dict[str, Any]:
    return {name: value for name, value in CASES[case][1].items() if name not in _OPTIONS}


def is_hurt(request: Request) -> bool:
    """Tell whether something broke it off."""
    broken = {"abort", "error"} & {s.finish_reason for s in request.branches}
    return request.error is not None or bool(broken)


class Busy:
    """Five requests at a time, of random kinds."""

    def __init__(self, seed: int, *, num_blocks: int = 8, **options: Any) -> None:
        ticks = count()
        self.random = random.Random(seed)
        self.cases = range(len(CASES) if options.get("kv_cache", True) else 10)  # else no beams
        self.engine: Engine = tiny_engine(
            MODEL, POOL, num_blocks=num_blocks, max_rows=64, block_size=16, max_num_seqs=6,
            eos_ids=EOS, step_ms=None, clock=lambda: next(ticks) / 1e3, **options,
        )  # fmt: skip
        self.live: dict[Request, int] = {}
        self.num_right = 0
        self.num_preempted = 0

    def fill(self) -> None:
        while len(self.live) < 5:
            self.add()

    def add(self) -> Request:
        case = self.random.choice(self.cases)
        priority = self.random.randrange(2)
        options = RequestOptions(priority, self.random.choice([None, None, 150]))
        request = add(self.engine, *_asked(case, options), **_params(case))
        self.live[request] = case
        return request

    def check(self, *, may_hurt: int) -> None:
        """Everything agrees; requests that ended have the answers that they have alone, but for at
        most `may_hurt` of them."""
        self.engine.check_integrity()
        counts = self.engine.counts()
        ended = [r for r in self.live if r.finished]
        assert counts["running"] + counts["waiting"] == len(self.live) - len(ended)
        assert sum(is_hurt(r) for r in ended) <= may_hurt
        for request in ended:
            case = self.live.pop(request)
            self.num_preempted += request.num_preemptions
            assert all(s.finish_reason is not None for s in request.branches)
            late = any(s.finish_reason == "deadline" for s in request.branches)
            if not late and not is_hurt(request):
                assert answers(request) == alone(case)
                self.num_right += 1

    def drain(self) -> None:
        """Step to the end of all requests; then nobody holds anything."""
        for _ in range(400):
            if self.engine.has_unfinished:
                self.engine.step()
                self.check(may_hurt=0)
        assert not self.live, "a request that never ends"
        assert self.engine.counts()["kv_blocks_used"] == 0
