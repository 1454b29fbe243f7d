"""Requests of every kind at random, on random tiny models of one to three layer groups and pools of
a few blocks.

After each step the pool is what a plain dict says, and every count is checked; at its end each
request has given, bit for bit, what it gives alone without a cache. The short run is the same each
time; `--octavo-long-fuzz` makes a long one that never is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
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

from octavo.engine.nouns import Request
from octavo.kernels import native
from octavo.request import Pooling, RequestOptions, RowValues
from octavo.sampling_params import SamplingParams
from octavo.weights.ggml_type import GGMLType
from tests.exactness.probe import Fault, Tokens
from tests.exactness.programs import Shape
from tests.exactness.random_models import ALONE, alone_of, kv_of, model_of, shapes
from tests.exactness.watched_engine import WatchedEngine
from tests.sums import Sums

LONGEST = 320  # tokens of the longest prompt: five tiles of attention, two chunks
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
    "biases": {"temperature": 0.0, "logit_bias": {0: 2.0, 3: -0.5, 5: 1.0}},
    "all edits": {
        "temperature": 1.0,
        "frequency_penalty": 0.5,
        "repetition_penalty": 1.2,
        "logit_bias": {1: -1.0, 4: 0.75},
    },
    "two answers": {"temperature": 1.0, "n": 2},
    "four answers": {"temperature": 1.5, "n": 4},
    "two beams": {"beam_width": 2},
    "four beams": {"beam_width": 4, "n": 2},
    "prompt": {"temperature": 0.0, "prompt_logprobs": 1},
    "prompt, two answers": {"temperature": 1.0, "prompt_logprobs": 0, "n": 2},
    "no answer": {"max_tokens": 0, "n": 2},
    "prompt alone": {"max_tokens": 0, "prompt_logprobs": 1},
    "prompt alone, two answers": {"max_tokens": 0, "prompt_logprobs": 0, "n": 2},
    "logits": {"max_tokens": 1},
    "scores": {"max_tokens": 1},
    "last": {},
    "mean": {},
}
EVERY_ROW: dict[str, RowValues] = {"logits": "logits", "scores": "scores"}
POOLING: dict[str, Pooling] = {"last": "last", "mean": "mean"}
FAULTS = ("forward", "transfer", "draw", "pool", "interrupt", "interrupted draw", "nan", "culprit")
TOGETHER = native.ThreadPool(2)


def text(vocab: int, which: int) -> Tokens:
    """The beginnings of these are equal for a while."""
    shared = [31, 77, 200, 400][which % 4]
    return tuple((i * i + i // 3 + (which if i >= shared else 0)) % vocab for i in range(LONGEST))


class RandomRequests(RuleBasedStateMachine):
    given: dict[str, Any]  # options that all examples have
    shapes: st.SearchStrategy[Shape]
    pool: native.ThreadPool
    seen: Counter[str]
    going = False

    @initialize(
        shape=st.runner().flatmap(lambda machine: machine.shapes),
        type=st.sampled_from([GGMLType.Q4_1, GGMLType.BF16]),
        options=engines,
        halves=st.sampled_from([1, 2, 4]),
    )
    def begin(self, shape: Shape, type: GGMLType, options: dict[str, Any], halves: int) -> None:
        options = options | self.given
        self.vocab = shape.vocab_size
        self.seen[f"{len(model_of(shape, type).program.groups)} groups"] += 1
        # Beyond what the pool holds of a group that keeps all, a window may be long enough; below
        # it there is room for pins.
        self.context = halves * options["num_blocks"] * options["block_size"] // 2
        options["context"] = self.context
        alone = alone_of(shape, type, kv_of(options), options["block_size"])
        self.watched = WatchedEngine(model_of(shape, type), self.pool, alone, self.seen, **options)
        self.going = True

    def guarded(self, act: Callable[..., None], *args: Any) -> None:
        """After a failure nothing more is done."""
        self.going = False
        act(*args)
        self.going = True

    def pick(self, which: int) -> Request:
        requests = list(self.watched.unfinished)
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
            constraint=st.sampled_from([None, None, None, Sums(2, 5), Sums(3, 30)]),
        ),
        offered=st.sampled_from([1, 1, 1, 2, 4]),
        steps=st.sampled_from([0, 0, 0, 1, 2, 6]),
    )
    def submit(
        self, source: int, length: int, tail: Tokens, kind: str, max_tokens: int,
        ignore_eos: bool, seed: int, options: RequestOptions, offered: int, steps: int,
    ) -> None:  # fmt: skip
        """A prompt that begins as a text or an earlier request, its answer included."""
        earlier = [s for r in self.watched.requests[-8:] for s in r.branches]
        if source % 2 and earlier:
            tokens = tuple(earlier[source // 2 % len(earlier)].tokens)
            length = len(tokens) if length > len(tokens) else length
        else:
            tokens = text(self.vocab, source % 8)
        options = replace(options, pooling=POOLING.get(kind))
        if "beam_width" in KINDS[kind] or kind in POOLING:
            options = replace(options, constraint=None)
        room = max(1, self.context - 1 - max_tokens * (seed > 0))
        prompt = ((*tokens[:length], *tail) or (0,))[:room]
        values = {"max_tokens": max_tokens, "ignore_eos": ignore_eos} | KINDS[kind]
        for i in range(offered):
            mine = {} if "beam_width" in values else {"seed": seed + i}
            params = SamplingParams.parse(values | mine)
            tokens = prompt + (i,) * (i > 1)
            self.seen["constrained"] += options.constraint is not None
            self.guarded(self.watched.add, tokens, params, options, EVERY_ROW.get(kind))
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

    @precondition(lambda self: self.watched.requests)
    @rule(which=picks, length=lengths, salt=st.sampled_from(["", "", "alice"]), share=picks)
    def pin(self, which: int, length: int, salt: str, share: int) -> None:
        requests = self.watched.requests[-8:]
        tokens = requests[which % len(requests)].branches[0].tokens[:length]
        self.guarded(self.watched.pin, tokens, salt, self.watched.kv.budget * share // 100)

    @precondition(lambda self: self.watched.pins)
    @rule(which=picks, clears=st.booleans(), salt=st.sampled_from(["", "alice", None]))
    def give_up_pins(self, which: int, clears: bool, salt: str | None) -> None:
        pins = list(self.watched.pins)
        if clears:
            self.guarded(self.watched.clear, salt)
        else:
            self.guarded(self.watched.unpin, pins[which % len(pins)])

    @precondition(lambda self: self.watched.unfinished)
    @rule(kind=st.sampled_from(FAULTS), after=st.integers(0, 20), which=picks)
    def put_fault(self, kind: str, after: int, which: int) -> None:
        few = {"pool": after, "draw": after % 4}.get(kind, 0)
        request = self.pick(which) if kind == "culprit" else None
        self.watched.probe.fault = Fault(kind, few, request)
        self.run_steps(6)

    @rule(ms=st.sampled_from([1.0, 50.0, 6000.0]), reclaim=st.booleans())
    def wait(self, ms: float, reclaim: bool) -> None:
        """Time goes by, and memory of idle blocks goes back."""
        self.watched.wait(ms)
        if reclaim:
            self.guarded(self.watched.reclaim)

    def teardown(self) -> None:
        if self.going:
            self.guarded(self.watched.drain)


# Each has to happen, or the test would say less than it seems to.
EVENTS = """
1 groups / 2 groups / 3 groups
admit / hit, full / hit, partial / hit, of whole blocks / hit that had to be
hit, cut by a window / waited for a producer / contexts that slide / block between let go
block: allocate / block: copy / block: cache / block: extend / block: share / block: take-over
block: let-go / block: evict / block that a window gave back / hole filled again
slide of a window shorter than a block / slide of a window of a block
slide of a window longer than a block / memory moved between groups / reason: window
copy-on-write / fork of answers / fork of beams / drop of a beam / no room / resume
preempt / preempt of answers / preempt of beams
cancel while waiting / cancel in the middle of a prefill / cancel in decode / end of one answer
deadline while waiting / deadline in the middle of a prefill / deadline in decode
step taken back / call raised / run of a suspect / culprit among others
fault: forward / fault: transfer / fault: draw / fault: pool / fault: interrupt
fault: interrupted draw / fault: nan / fault: culprit
ended: stop / ended: length / ended: abort / ended: deadline / ended: error
constrained / refused: OutOfMemoryError / reclaim of cached blocks / rows compared
logprobs of every row, whole / logits of every row, whole / scores of every row, whole
logprobs of every row, given up / logits of every row, given up / scores of every row, given up
embedding: last / embedding: mean / block: clear / pin / no pin / unpin / pins cleared
reason: None / reason: cold / reason: diverged / reason: evicted / reason: salt
reason: disabled / reason: needs-all-rows / V read from K
"""


def test_no_request_ever_notices_another(pytestconfig: pytest.Config) -> None:
    long = pytestconfig.getoption("--octavo-long-fuzz")
    kv = [{"kv_dtype": dtype} for dtype in ("bf16", "f32", "int8")]
    run_engines(1_000_000 if long else 10_000, kv, EVENTS, long)


def run_engines(
    steps: int, kv: Sequence[Mapping[str, Any]], wanted: str, long: bool,
    *, shapes: st.SearchStrategy[Shape] = shapes, examples: int = 7,
) -> None:  # fmt: skip
    """So many steps, or a few more, with each of the options of K and V; every one of the events
    has to happen in them."""
    seen: Counter[str] = Counter()
    for number in count():
        for _ in run_every_kind_of_engine(number, kv, seen, long, shapes, examples):
            if number and seen["step"] >= steps:  # of the first run each kind is wanted
                break
        if seen["step"] >= steps:
            break
    for name, times in sorted(seen.items()):
        print(f"{times:7d} {name}")
    events = [event for line in wanted.split("\n") if line for event in line.split(" / ")]
    assert [event for event in events if not seen[event]] == []


def run_every_kind_of_engine(
    number: int, kv: Sequence[Mapping[str, Any]], seen: Counter[str], long: bool,
    shapes: st.SearchStrategy[Shape], examples: int,
) -> Iterator[None]:  # fmt: skip
    """Every third on two threads, in the next run others: with tiny models most of the time goes
    into threads that wait for each other."""
    kinds = product(kv, ("lru", "cost"), ("fcfs", "longest-prefix"))
    for i, (of_kv, eviction, schedule) in enumerate(kinds, number):
        given = {**of_kv, "eviction": eviction, "schedule": schedule}
        pool = TOGETHER if i % 3 == 2 else ALONE
        # Of another name, since what is random in the short run follows from the name.
        name = f"run {number}{(*of_kv.values(), eviction, schedule)}"
        attributes = {"seen": seen, "given": given, "shapes": shapes, "pool": pool}
        machine = type(name, (RandomRequests,), attributes)
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=100,
                derandomize=not long,
                phases=[Phase.generate, Phase.shrink] if long else [Phase.generate],
                deadline=None,
                database=None,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
        yield
