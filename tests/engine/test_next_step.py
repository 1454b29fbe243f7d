"""A step that is planned from the one before is the step that would be planned anew."""

from __future__ import annotations

import dataclasses
import gc
import random
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from octavo.batch import Want
from octavo.constraint import ConstraintState, Words
from octavo.engine.step import StepPlan
from octavo.kv_cache.groups import KeepAll, KeepLast, LayerGroup
from octavo.request import RequestOptions
from tests.engine.busy import MODEL, POOL, TEXT
from tests.engine.driven import Driven, text
from tests.engine.tiny_engine import add, answered, run, tiny_engine
from tests.sums import Sums, SumsState

GROUPS = [[LayerGroup(1)], [LayerGroup(1, KeepAll()), LayerGroup(1, KeepLast(6))]]


def said(plan: StepPlan) -> dict[str, Any]:
    """All that a plan says but when it was made, in values that compare between two engines."""
    found: dict[str, Any] = {
        "spans": [(b.request.id, b.index, span) for b, span in plan.spans.items()],
        "rows": [
            (r.branch.request.id, r.branch.index, r.position, r.row, r.samples, r.asked.want)
            for r in plan.head_rows
        ],
        "requests": [(each.id, len(rows)) for each, rows in plan.requests.items()],
        "caught up": {each.id for each in plan.caught_up},
        "others": (list(plan.transfers), plan.num_preempted, plan.waits_for_copies),
    }
    if plan.batch is None:
        return found
    for field in dataclasses.fields(plan.batch):
        value = getattr(plan.batch, field.name)
        is_array = isinstance(value, np.ndarray)
        found[field.name] = (value.dtype, value.tolist()) if is_array else value
    if plan.batch.uniforms is not None:  # those of rows that do not draw mean nothing
        found["uniforms"] = plan.batch.uniforms[plan.batch.wants == Want.DRAW].tolist()
    found["block_tables"] = [  # what lies behind the end of a table is not said
        [np.trim_zeros(table, "b").tolist() for table in tables]
        for tables in plan.batch.block_tables
    ]
    return found


class Pair:
    """Two engines that are asked for the same; one of them plans every step anew."""

    def __init__(self, num_blocks: int, max_rows: int, groups: Sequence[LayerGroup]) -> None:
        options: dict[str, Any] = {"max_rows": max_rows, "max_num_seqs": 6, "groups": groups}
        self.both = Driven(num_blocks, **options), Driven(num_blocks, **options)
        self.last: StepPlan | None = None
        self.num_moved = self.num_steps = 0

    def add(self, prompt: Sequence[int], **params: Any) -> None:
        for it in self.both:
            it.add(prompt, **params)

    def end(self, number: int) -> None:
        for it in self.both:
            request = list(it.requests.all)[number]
            it.engine.finish(request, "abort")

    def step(self) -> None:
        moved, anew = self.both
        anew.engine.scheduler.next_step.drop()
        plans = moved.plan(), anew.plan()
        assert said(plans[0]) == said(plans[1])
        self.num_steps += 1
        self.num_moved += plans[0] is self.last
        self.last = plans[0]
        for it, plan in zip(self.both, plans, strict=True):
            it.run(plan)


@pytest.mark.parametrize("groups", GROUPS, ids=["one group", "a windowed one too"])
@pytest.mark.parametrize(
    ("num_blocks", "max_rows"), [(40, 16), (150, 16), (150, 5)], ids=["tight", "wide", "few rows"]
)
def test_what_follows_is_what_would_be_planned_anew(
    groups: Sequence[LayerGroup], num_blocks: int, max_rows: int
) -> None:
    drawn = random.Random(num_blocks + len(groups))
    pair = Pair(num_blocks, max_rows, groups)
    hows: list[dict[str, Any]] = [
        {}, {"n": 3, "temperature": 1, "seed": 1}, {"beam_width": 2}, {"logprobs": 2},
        {"temperature": 0.5, "seed": 2}, {"repetition_penalty": 1.5}, {"prompt_logprobs": 0},
    ]  # fmt: skip
    for _ in range(250):
        live = len(pair.both[0].requests.all)
        if live < 9 and drawn.random() < 0.12:
            # Prompts that begin alike, so that blocks are shared, copied and waited for.
            shared = text(drawn.randrange(2), 30)[: drawn.randrange(1, 24)]
            prompt = shared + text(drawn.randrange(9), drawn.randrange(4))
            how = {"priority": drawn.randrange(2), **drawn.choice(hows)}
            pair.add(prompt, max_tokens=drawn.randrange(1, 40), **how)
        elif live and drawn.random() < 0.02:
            pair.end(drawn.randrange(live))
        pair.step()
    assert 0 < pair.num_moved < pair.num_steps


def test_a_prompt_that_takes_a_row_a_step_is_planned_anew_each_time() -> None:
    it = Driven(16, max_rows=1)
    it.add(text(1, 5), max_tokens=3)
    spans = [(0, at, at + 1) for at in range(7)]
    assert it.steps(7) == [[span] for span in spans]
    assert not it.engine.has_unfinished


def test_a_plan_that_did_not_run_is_not_moved_on() -> None:
    it = Driven(16)
    it.add(text(1, 3))
    it.steps(2)
    spans = list(it.plan().spans.values())
    assert list(it.plan().spans.values()) == spans == [(4, 5)]


def test_a_step_of_one_alone_is_not_moved_on_for_all() -> None:
    it = Driven(16)
    one, two = it.add(text(1, 3)), it.add(text(2, 3))
    it.steps(2)
    assert it.run(it.plan(only=one)) == [(one.id, 4, 5)]
    assert it.step() == [(one.id, 5, 6), (two.id, 4, 5)]
    assert it.step() == [(one.id, 6, 7), (two.id, 5, 6)]


def test_rows_of_a_step_moved_on_are_in_the_order_of_one_planned_anew() -> None:
    it = Driven(16)
    late = it.add(text(1, 3), priority=1)
    it.step()
    first = it.add(text(2, 1))
    assert it.step() == [(late.id, 3, 4), (first.id, 0, 1)]
    assert it.step() == [(first.id, 1, 2), (late.id, 4, 5)]


class FailsOnce(SumsState):
    """Whose second mask, of the second step, is to be had when it is asked for again."""

    num_masks = 0

    def fill_mask(self, words: Words) -> None:
        self.num_masks += 1
        if self.num_masks == 2:
            raise MemoryError
        super().fill_mask(words)


class SumsFailingOnce(Sums):
    def start(self) -> ConstraintState:
        return FailsOnce(self)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_whose_logits_were_wanted_in_one_step_is_the_heads_again_in_the_next(
    temperature: float,
) -> None:
    how: dict[str, Any] = {"max_tokens": 8, "temperature": temperature, "seed": 5}
    wanted, got = (
        answered(tiny_engine(MODEL, POOL), TEXT[:20], RequestOptions(constraint=rule), **how)
        for rule in (Sums(2, 12), SumsFailingOnce(2, 12))
    )
    assert got.error is None
    assert got.branches[0].tokens == wanted.branches[0].tokens


def test_an_engine_at_rest_holds_nothing_of_what_ran() -> None:
    engine, rule = tiny_engine(MODEL, POOL), Sums(2, 12)
    add(engine, TEXT[:20], RequestOptions(constraint=rule), max_tokens=8, temperature=1, top_k=5)
    for _ in range(3):
        engine.step()
    run(engine)
    engine.reclaim()
    held = weakref.ref(rule)
    del rule
    gc.collect()
    assert held() is None
