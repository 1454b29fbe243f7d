"""Requests of every kind at random, on random tiny models and pools of a few blocks.

After each step the pool is what a plain dict says, and every count is checked; at its end each
request has given, bit for bit, what it gives alone without a cache. The short run is the same each
time; `--octavo-long-fuzz` makes a long one that never is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from octavo.kernels import native
from octavo.model.config import ModelConfig
from octavo.request import Request, RequestOptions
from octavo.sampling_params import SamplingParams
from octavo.weights.ggml_type import GGMLType
from tests.exactness.alone import Alone
from tests.exactness.watched_engine import Fault, Tokens, WatchedEngine
from tests.tiny import TINY, TinyModel, make_runner, tiny_model

EOS = 3
LONGEST = 320  # tokens of the longest prompt: five tiles of attention, two chunks

models = st.builds(
    lambda layers, heads, vocab, tied: replace(
        TINY, num_layers=layers, hidden_size=64, ffn_size=96, vocab_size=vocab, tied_head=tied,
        heads=heads[0], kv_heads=heads[1], head_dim=heads[2], rotary_dim=heads[2],
    ),
    layers=st.integers(1, 3),
    heads=st.sampled_from([(1, 1, 32), (2, 1, 16), (4, 2, 16), (4, 1, 32), (3, 3, 32)]),
    vocab=st.sampled_from([6, 19, 40]),
    tied=st.booleans(),
)  # fmt: skip
engines = st.fixed_dictionaries(
    {
        "block_size": st.sampled_from([16, 16, 16, 32, 64]),
        "num_blocks": st.sampled_from([4, 5, 6, 8, 10, 20]),
        "max_rows": st.sampled_from([8, 33, 64, 330]),
        "max_num_seqs": st.sampled_from([4, 8]),
        "kv_dtype": st.sampled_from(["bf16", "f32"]),
        "prefix_cache": st.sampled_from([True] * 7 + [False]),
        "schedule": st.sampled_from(["fcfs", "longest-prefix"]),
        "eviction": st.sampled_from(["lru", "cost"]),
        "step_ms": st.sampled_from([None, 40.0]),
        "kv_idle": st.sampled_from([0.1, 3.0]),
    }
)
lengths = st.integers(0, 70) | st.integers(0, LONGEST)
tails = st.lists(st.integers(0, 1), max_size=4).map(tuple)
picks = st.integers(0, 99)
KINDS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "warm": {"temperature": 1.5, "top_p": 0.9},
    "logprobs": {"temperature": 1.0, "logprobs": 2},
    "penalties": {"temperature": 0.0, "repetition_penalty": 1.3, "presence_penalty": 0.5},
    "two answers": {"temperature": 1.0, "n": 2},
    "four answers": {"temperature": 1.5, "n": 4},
    "two beams": {"beam_width": 2},
    "four beams": {"beam_width": 4, "n": 2},
    "prompt": {"temperature": 0.0, "prompt_logprobs": 1},
    "prompt, two answers": {"temperature": 1.0, "prompt_logprobs": 0, "n": 2},
}
FAULTS = ("forward", "copy", "draw", "pool", "interrupt", "interrupted draw", "nan", "culprit")
AROUND = ("wait", "reclaim", "all_rows", "pin", "pin", "unpin")
POOL = native.ThreadPool(2)


@cache
def model_of(config: ModelConfig, type: GGMLType) -> TinyModel:
    return tiny_model(config, POOL, type=type)


@cache
def alone_of(config: ModelConfig, type: GGMLType, kv_dtype: str) -> Alone:
    runner = make_runner(
        model_of(config, type), POOL, num_blocks=14, max_rows=14 * 32, kv_dtype=kv_dtype
    )
    return Alone(runner, frozenset({EOS}))


def text(vocab: int, which: int) -> Tokens:
    """The beginnings of these are equal for a while."""
    shared = [31, 77, 200, 400][which % 4]
    return tuple((i * i + i // 3 + (which if i >= shared else 0)) % vocab for i in range(LONGEST))


class RandomRequests(RuleBasedStateMachine):
    seen: Counter[str]
    going = False

    @initialize(
        config=models,
        type=st.sampled_from([GGMLType.Q4_1, GGMLType.BF16]),
        options=engines,
        pinnable=st.sampled_from([0, 0, 2]),
    )
    def begin(
        self, config: ModelConfig, type: GGMLType, options: dict[str, Any], pinnable: int
    ) -> None:
        self.vocab = config.vocab_size
        self.context = (options["num_blocks"] - pinnable) * options["block_size"]
        alone = alone_of(config, type, options["kv_dtype"])
        self.watched = WatchedEngine(
            model_of(config, type), POOL, alone, self.seen, context=self.context, **options
        )
        self.going = True
        for name in ("eviction", "schedule", "kv_dtype", "block_size", "step_ms"):
            self.seen[f"{name}: {options[name]}"] += 1

    def guarded(self, act: Callable[..., None], *args: Any) -> None:
        """After a failure nothing more is done."""
        self.going = False
        act(*args)
        self.going = True

    def pick(self, which: int) -> Request:
        requests = sorted(self.watched.unfinished, key=lambda r: r.id)
        return requests[which % len(requests)]

    @rule(
        source=picks,
        length=lengths,
        tail=tails,
        kind=st.sampled_from(sorted(KINDS)),
        max_tokens=st.integers(1, 8) | st.integers(1, 40),
        ignore_eos=st.booleans(),
        seed=st.integers(0, 2),
        options=st.builds(
            RequestOptions,
            priority=st.sampled_from([0, 0, 0, 1]),
            deadline_ms=st.sampled_from([None, None, None, 60, 400]),
            cache_salt=st.sampled_from(["", "", "alice"]),
        ),
        steps=st.sampled_from([0, 0, 1, 2, 5, 9]),
    )
    def submit(
        self, source: int, length: int, tail: Tokens, kind: str, max_tokens: int,
        ignore_eos: bool, seed: int, options: RequestOptions, steps: int,
    ) -> None:  # fmt: skip
        """A prompt that begins as a text or an earlier request, its answer included."""
        earlier = [s for r in self.watched.requests[-8:] for s in r.sequences]
        if source % 2 and earlier:
            tokens = tuple(earlier[source // 2 % len(earlier)].tokens)
            length = len(tokens) if length > len(tokens) else length
        else:
            tokens = text(self.vocab, source % 8)
        room = max(1, self.context - max_tokens * (seed > 0))
        prompt = ((*tokens[:length], *tail) or (0,))[:room]
        values = {"max_tokens": max_tokens, "ignore_eos": ignore_eos, "seed": seed} | KINDS[kind]
        if "beam_width" in values:
            del values["seed"]
        params = SamplingParams(**values)
        self.guarded(self.watched.add, prompt, params, options)
        self.run_steps(steps)

    @rule(count=st.integers(1, 20))
    def run_steps(self, count: int) -> None:
        for _ in range(count):
            if self.watched.engine.has_unfinished:
                self.guarded(self.watched.step)

    @precondition(lambda self: self.watched.unfinished)
    @rule(which=picks, whole=st.booleans())
    def cancel(self, which: int, whole: bool) -> None:
        request = self.pick(which)
        live = [s for s in request.sequences if s.num_completion_tokens and not s.finish_reason]
        if whole or not live or request.params.beam_width:
            self.guarded(self.watched.cancel, request)
        else:
            self.guarded(self.watched.cancel_sequence, live[which % len(live)])

    @precondition(lambda self: self.watched.unfinished)
    @rule(kind=st.sampled_from(FAULTS), after=st.integers(0, 20), which=picks)
    def put_fault(self, kind: str, after: int, which: int) -> None:
        few = {"pool": after, "draw": after % 4}.get(kind, 0)
        request = self.pick(which) if kind == "culprit" else None
        self.watched.fault = Fault(kind, few, request)
        self.run_steps(6)

    @rule(ms=st.sampled_from([1.0, 50.0, 6000.0]), what=st.sampled_from(AROUND), which=picks)
    def around(self, ms: float, what: str, which: int) -> None:
        """What is asked of the cache beside requests, and time that goes by."""
        watched = self.watched
        watched.wait(ms)
        if what == "reclaim":
            self.guarded(watched.reclaim)
        elif what == "all_rows":
            tokens = text(self.vocab, which % 8)[: min(1 + which, self.context)]
            self.guarded(watched.all_rows, tokens, min(watched.runner.max_rows, 1 + which))
        elif what == "unpin" and watched.pinned:
            self.guarded(watched.unpin, which)
        elif what == "pin" and watched.shares and watched.requests:
            recent = watched.requests[-8:]
            self.guarded(watched.pin, recent[which % len(recent)])

    def teardown(self) -> None:
        if self.going:
            self.guarded(self.watched.drain)




def test_no_request_ever_notices_another(pytestconfig: pytest.Config) -> None:
    long = pytestconfig.getoption("--octavo-long-fuzz")
    seen: Counter[str] = Counter()
    machine = type("RandomRequestsOnce", (RandomRequests,), {"seen": seen})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=10_000 if long else 100,
            stateful_step_count=100,
            derandomize=not long,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
    for name, count in sorted(seen.items()):
        print(f"{count:7d} {name}")
    assert seen["step"] >= 10_000
