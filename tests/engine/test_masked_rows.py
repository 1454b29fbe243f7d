"""An answer under a constraint is picked or drawn in the head, by a mask beside the batch; where
more is wanted of the row, by hand. Both pick the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from octavo.batch import Want
from octavo.constraint import ConstraintState, Words
from octavo.engine.nouns import Request
from octavo.engine.step import StepPlan
from octavo.errors import ConstraintError
from octavo.request import RequestOptions
from tests.engine.busy import MODEL, POOL, TEXT
from tests.engine.tiny_engine import add, answered, run, tiny_engine
from tests.sums import Sums
from tests.tiny import TINY, tiny_model

PADDED = tiny_model(replace(TINY, padding=100), POOL)  # of 1,100 rows of the head 1,000 are tokens
ODD = RequestOptions(constraint=Sums(2, 12))
BY_HAND = {"logprobs": 1}  # the row itself is wanted


def wants(plan: StepPlan) -> list[tuple[Want, bool]]:
    """Of each row; and whether it has a mask."""
    return [(row.asked.want, row.asked.mask is not None) for row in plan.head_rows]


def tokens(request: Request) -> Sequence[Sequence[int]]:
    assert request.error is None
    return [branch.completion_token_ids for branch in request.branches]


@pytest.mark.parametrize("model", [MODEL, PADDED], ids=["whole", "padded"])
@pytest.mark.parametrize(
    "params",
    [
        *({}, {"repetition_penalty": 1.5}, {"logit_bias": {6: 20.0, 9: 19.0}}, {"n": 2}),
        {"temperature": 3.0, "seed": 1},
        {"temperature": 3.0, "seed": 1, "repetition_penalty": 1.5, "n": 3},
    ],
    ids=str,
)
def test_what_the_head_picks_is_what_is_picked_by_hand(model: Any, params: dict[str, Any]) -> None:
    free = answered(tiny_engine(model, POOL), TEXT[:20], max_tokens=12, **params)
    want = answered(tiny_engine(model, POOL), TEXT[:20], ODD, max_tokens=12, **params, **BY_HAND)
    engine = tiny_engine(model, POOL)
    got, beside = (
        add(engine, TEXT[:20], ODD, max_tokens=12, **params),
        add(engine, TEXT[3:30], max_tokens=9),
    )
    run(engine)
    assert tokens(got) == tokens(want) != tokens(free)
    alone = answered(tiny_engine(model, POOL), TEXT[3:30], max_tokens=9)
    assert tokens(beside) == tokens(alone)  # in one batch with masks


def test_only_rows_of_constraints_that_the_head_chooses_from_have_masks() -> None:
    engine = tiny_engine(PADDED, POOL)
    add(engine, TEXT[:3], ODD)
    add(engine, TEXT[3:6])
    add(engine, TEXT[6:9], ODD, temperature=1.0)
    add(engine, TEXT[9:12], ODD, temperature=1.0, top_k=5)
    add(engine, TEXT[12:15], ODD, **BY_HAND)
    plan = engine.scheduler.schedule()
    argmax, logits = (Want.ARGMAX, False), (Want.LOGITS, False)
    assert wants(plan) == [(Want.ARGMAX, True), argmax, (Want.DRAW, True), logits, logits]
    masks = plan.batch.masks
    assert masks is not None
    assert masks.shape == (5, -(-TINY.vocab_size // 32))
    for i in range(5):
        assert set(masks[i].tolist()) == {0xAAAAAAAA if i in (0, 2) else 0xFFFFFFFF}  # the odd ones
    free = tiny_engine(PADDED, POOL)
    add(free, TEXT[:3])
    assert free.scheduler.schedule().batch.masks is None
    alone = tiny_engine(PADDED, POOL)
    add(alone, TEXT[:3], ODD)
    assert alone.scheduler.schedule().batch.masks.tolist() == masks[:1].tolist()


class Failing:
    """Allows everything, and after so many tokens nothing."""

    vocabulary = None
    is_done = False

    def __init__(self) -> None:
        self.left = 2

    def start(self) -> ConstraintState:
        return self

    def fork(self) -> ConstraintState:
        raise AssertionError("one answer")

    def fill_mask(self, words: Words) -> None:
        if self.left == 0:
            raise ConstraintError("beyond its limits")
        words[:] = np.uint32(0xFFFFFFFF)

    def accept(self, token: int) -> None:
        self.left -= 1


def test_a_mask_that_cannot_be_had_ends_its_request_alone() -> None:
    engine = tiny_engine(MODEL, POOL)
    failing = add(engine, TEXT[:9], RequestOptions(constraint=Failing()), max_tokens=5)
    other = add(engine, TEXT[:7], max_tokens=5)
    run(engine)
    assert isinstance(failing.error, ConstraintError)
    assert failing.branches[0].num_completion_tokens == 2
    assert len(tokens(other)[0]) == 5
