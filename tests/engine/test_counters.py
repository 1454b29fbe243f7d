"""What an engine counts over its whole life, by hand; no count ever goes down."""

from __future__ import annotations

from dataclasses import fields

from octavo.constraint import ConstraintState, Words
from octavo.engine.engine import Engine
from octavo.errors import ConstraintError
from octavo.records import CacheReason, Totals
from octavo.request import RequestOptions
from tests.engine.busy import MODEL, POOL, TEXT
from tests.engine.driven import Driven, text
from tests.engine.tiny_engine import add, answered, run, tiny_engine

OTHER = TEXT[::-1]


def counts(totals: Totals) -> dict[str, float]:
    """Each number by itself."""
    found: dict[str, float] = {}
    for name in (field.name for field in fields(Totals)):
        value = getattr(totals, name)
        parts = value.items() if hasattr(value, "items") else [("", value)]
        found |= {f"{name} {key}": number for key, number in parts}
    return found


def plain(engine: Engine) -> dict[str, float]:
    """Without what a clock says."""
    return {k: v for k, v in counts(engine.totals()).items() if "seconds" not in k and v}


def test_tokens_hits_and_misses_add_up_over_requests() -> None:
    engine = tiny_engine(MODEL, POOL)
    assert plain(engine) == {}
    answered(engine, TEXT[:40], max_tokens=3)
    answered(engine, TEXT[:40], max_tokens=2, n=2, temperature=1.0, seed=1)
    answered(engine, OTHER[:30], max_tokens=1)
    answered(engine, TEXT[:20], max_tokens=1, prompt_logprobs=0)  # looks for nothing
    assert plain(engine) == {
        "requests ": 4,
        "finished length": 5,
        "prompt_tokens ": 40 + 40 + 30 + 20,
        "generated_tokens ": 3 + 2 * 2 + 1 + 1,
        "queried_tokens ": 40 + 40 + 30,
        "matched_tokens ": 39,
        f"misses {CacheReason.COLD}": 1,
        f"misses {CacheReason.DIVERGED}": 1,
        f"misses {CacheReason.NEEDS_ALL_ROWS}": 1,
        "steps ": len(engine.records),
        "computed_tokens ": sum(r.computed_tokens for r in engine.records),
    }
    seconds = engine.totals()
    assert seconds.step_seconds == sum(r.seconds for r in engine.records)
    assert seconds.forward_seconds == sum(r.forward_seconds for r in engine.records)
    assert seconds.mask_seconds == 0


class Slow:
    """Allows everything, and takes a quarter of a second to say so."""

    vocabulary = None
    is_done = False

    def __init__(self, now: list[float]) -> None:
        self._now = now

    def start(self) -> ConstraintState:
        return self

    def fork(self) -> ConstraintState:
        return self

    def fill_mask(self, words: Words) -> None:
        self._now[0] += 0.25
        words[:] = 0xFFFFFFFF
        if self._now[0] >= 2.0:
            raise ConstraintError("beyond its limits")

    def accept(self, token: int) -> None:
        pass


def test_the_seconds_of_masks_add_up_also_of_those_that_failed() -> None:
    now = [0.0]
    engine = tiny_engine(MODEL, POOL, clock=lambda: now[0])
    slow = RequestOptions(constraint=Slow(now))
    answered(engine, TEXT[:5], slow, max_tokens=3)
    answered(engine, TEXT[:5], max_tokens=3)
    assert engine.totals().mask_seconds == 0.75
    answered(engine, TEXT[:5], slow, max_tokens=2, n=2, temperature=1.0, seed=1)
    assert engine.totals().mask_seconds == 1.5  # one where the answers part, then one each
    failed = answered(engine, TEXT[:5], slow, max_tokens=3)
    assert isinstance(failed.error, ConstraintError)
    assert engine.totals().mask_seconds == 2.25  # it is asked again, to say so


def test_each_end_is_counted_once_by_what_is_said_of_it() -> None:
    now = [0.0]
    engine = tiny_engine(MODEL, POOL, clock=lambda: now[0])
    engine.finish(add(engine, TEXT[:5]), "abort")
    add(engine, TEXT[:5], RequestOptions(deadline_ms=5))
    now[0] = 1.0
    run(engine)
    late = add(engine, TEXT[:5], max_tokens=1)
    engine.step()
    assert late.finished
    assert engine.totals().finished == {"abort": 1, "deadline": 1, "length": 1}
    engine.finish_branch(late.branches[0], "stop")  # a stop string is found in its last token
    assert engine.totals().finished == {"abort": 1, "deadline": 1, "stop": 1}
    assert engine.totals().requests == 3


def test_of_answers_the_one_that_ends_first_is_renamed_before_it_is_counted() -> None:
    engine = tiny_engine(MODEL, POOL)
    request = add(engine, TEXT[:5], n=2, temperature=1.0, seed=1, max_tokens=2)
    engine.step()
    engine.finish_branch(request.branches[0], "length")
    engine.finish_branch(request.branches[0], "stop")
    assert engine.totals().finished == {}
    run(engine)
    assert engine.totals().finished == {"stop": 1, "length": 1}


def test_who_gives_up_its_blocks_is_counted_and_looked_up_once() -> None:
    it = Driven(num_blocks=5)
    it.add(text(1, 8), max_tokens=9)
    it.add(text(2, 4), max_tokens=9)
    it.run_all()
    totals = it.engine.totals()
    assert totals.preemptions > 0
    assert totals.preemptions == sum(r.num_preempted for r in it.engine.records)
    assert totals.prompt_tokens == totals.queried_tokens == 12
    assert totals.generated_tokens == 18
    assert totals.computed_tokens == it.computed
