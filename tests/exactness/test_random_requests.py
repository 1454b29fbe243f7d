"""Requests of every kind at random, on random tiny models and pools of a few blocks.

After each step the pool is what a plain dict says, and every count is checked; at its end each
request has given, bit for bit, what it gives alone without a cache. The short run is the same each
time; `--octavo-long-fuzz` makes a long one that never is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from itertools import count, product
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
from tests.exactness.probe import Fault, Tokens
from tests.exactness.watched_engine import WatchedEngine
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
        "max_num_seqs": st.sampled_from([4, 16, 16]),
        "prefix_cache": st.sampled_from([True, True, True, False]),
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
    "prompt alone": {"max_tokens": 0, "prompt_logprobs": 1},
    "prompt alone, two answers": {"max_tokens": 0, "prompt_logprobs": 0, "n": 2},
}
FAULTS = ("forward", "copy", "draw", "pool", "interrupt", "interrupted draw", "nan", "culprit")
AROUND = ("wait", "reclaim", "all_rows", "pin", "pin", "unpin")
POOL = native.ThreadPool(2)


@lru_cache(16)
def model_of(config: ModelConfig, type: GGMLType) -> TinyModel:
    return tiny_model(config, POOL, type=type)


@lru_cache(16)
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
    given: dict[str, Any]  # options that all examples have
    seen: Counter[str]
    going = False

    @initialize(
        config=models,
        type=st.sampled_from([GGMLType.Q4_1, GGMLType.BF16]),
        options=engines,
        pinnable=st.sampled_from([0, 2, 4]),
    )
    def begin(
        self, config: ModelConfig, type: GGMLType, options: dict[str, Any], pinnable: int
    ) -> None:
        options = options | self.given
        self.vocab = config.vocab_size
        self.context = max(2, options["num_blocks"] - pinnable) * options["block_size"]
        alone = alone_of(config, type, options["kv_dtype"])
        self.watched = WatchedEngine(
            model_of(config, type), POOL, alone, self.seen, context=self.context, **options
        )
        self.going = True

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
        offered=st.sampled_from([1, 1, 1, 2, 4]),
        steps=st.sampled_from([0, 0, 0, 1, 2, 6]),
    )
    def submit(
        self, source: int, length: int, tail: Tokens, kind: str, max_tokens: int,
        ignore_eos: bool, seed: int, options: RequestOptions, offered: int,
        steps: int,
    ) -> None:  # fmt: skip
        """A prompt that begins as a text or an earlier request, its answer included."""
        earlier = [s for r in self.watched.requests[-8:] for s in r.branches]
        if source % 2 and earlier:
            tokens = tuple(earlier[source // 2 % len(earlier)].tokens)
            length = len(tokens) if length > len(tokens) else length
        else:
            tokens = text(self.vocab, source % 8)
        room = max(1, self.context - 1 - max_tokens * (seed > 0))
        prompt = ((*tokens[:length], *tail) or (0,))[:room]
        values = {"max_tokens": max_tokens, "ignore_eos": ignore_eos} | KINDS[kind]
        for i in range(offered):
            mine = {} if "beam_width" in values else {"seed": seed + i}
            params = SamplingParams.parse(values | mine)
            self.guarded(self.watched.add, prompt + (i,) * (i > 1), params, options)
        self.run_steps(steps)

    @rule(count=st.integers(1, 8))
    def run_steps(self, count: int) -> None:
        for _ in range(count):
            if self.watched.engine.has_unfinished:
                self.guarded(self.watched.step)

    @precondition(lambda self: self.watched.unfinished)
    @rule(which=picks, whole=st.booleans())
    def cancel(self, which: int, whole: bool) -> None:
        request = self.pick(which)
        live = [s for s in request.branches if s.num_completion_tokens and not s.finish_reason]
        if whole or not live or request.params.beam_width:
            self.guarded(self.watched.cancel, request)
        else:
            self.guarded(self.watched.cancel_branch, live[which % len(live)])

    @precondition(lambda self: self.watched.unfinished)
    @rule(kind=st.sampled_from(FAULTS), after=st.integers(0, 20), which=picks)
    def put_fault(self, kind: str, after: int, which: int) -> None:
        few = {"pool": after, "draw": after % 4}.get(kind, 0)
        request = self.pick(which) if kind == "culprit" else None
        self.watched.probe.fault = Fault(kind, few, request)
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
            rows = min(watched.engine._runner.max_rows, 1 + which // 4)
            self.guarded(watched.all_rows, tokens, rows, which)
        elif what == "unpin" and watched.pinned:
            self.guarded(watched.unpin, which)
        elif what == "pin" and watched.shares and watched.requests:
            recent = watched.requests[-8:]
            self.guarded(watched.pin, recent[which % len(recent)])

    def teardown(self) -> None:
        if self.going:
            self.guarded(self.watched.drain)


# Each has to happen, or the test would say less than it seems to.
EVENTS = """
admit / hit, full / hit, partial / hit, of whole blocks / known at register / waited for a leader
copy-on-write / kept block went on in place / kept block taken over / partial block extended
fork of answers / fork of beams / drop of a beam / no room / resume
preempt / preempt of answers / preempt of beams
cancel while waiting / cancel in the middle of a prefill / cancel in decode / end of one answer
deadline while waiting / deadline in the middle of a prefill / deadline in decode
step rolled back / call raised / run of a suspect / culprit among others
fault: forward / fault: copy / fault: draw / fault: pool / fault: interrupt
fault: interrupted draw / fault: nan / fault: culprit
ended: stop / ended: length / ended: abort / ended: deadline / ended: error
refused: OutOfMemoryError / evicted / reclaim of kept blocks
rows compared / pin / pin refused / unpin / all_rows / all_rows given up / all_rows without room
reason: None / reason: cold / reason: diverged / reason: evicted / reason: salt
reason: disabled / reason: needs-all-rows
"""


def test_no_request_ever_notices_another(pytestconfig: pytest.Config) -> None:
    long = pytestconfig.getoption("--octavo-long-fuzz")
    seen: Counter[str] = Counter()
    for number in count():
        run_every_kind_of_engine(f"run {number}", seen, long)
        if seen["step"] >= (1_000_000 if long else 10_000):
            break
    for name, times in sorted(seen.items()):
        print(f"{times:7d} {name}")
    events = [event for line in EVENTS.split("\n") if line for event in line.split(" / ")]
    assert [event for event in events if not seen[event]] == []


def run_every_kind_of_engine(name: str, seen: Counter[str], long: bool) -> None:
    for options in product(("bf16", "f32"), ("lru", "cost"), ("fcfs", "longest-prefix")):
        given = dict(zip(("kv_dtype", "eviction", "schedule"), options, strict=True))
        # Of another name, since what is random in the short run follows from the name.
        machine = type(f"{name}{options}", (RandomRequests,), {"seen": seen, "given": given})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=7,
                stateful_step_count=100,
                derandomize=not long,
                phases=[Phase.generate, Phase.shrink] if long else [Phase.generate],
                deadline=None,
                database=None,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
