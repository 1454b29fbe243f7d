"""Which experts a row meets, and what is added of each: every level against its numpy twin."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.kernels import available_isas, native
from tests.kernels import route_twin as twin
from tests.kernels.exact import F32, Floats, check_bits, fma
from tests.kernels.guard import guarded

pytestmark = pytest.mark.parametrize("isa", available_isas())
quick = settings(max_examples=80, deadline=None, derandomize=True)


def route(
    isa: str,
    logits: Floats,
    bias: Floats | None,
    used: int,
    score: str,
    renormalise: bool = False,
    scale: float = 1.0,
    groups: int = 1,
    groups_used: int = 1,
) -> Floats:
    out = guarded(np.full(2 * used, np.nan, F32))
    native.route(
        isa, out, guarded(logits), None if bias is None else guarded(bias),
        native.ROUTE_SCORES.index(score), renormalise, scale, groups, groups_used,
    )  # fmt: skip
    return out


@quick
@given(data=st.data(), seed=st.integers(0, 2**32 - 1), score=st.sampled_from(native.ROUTE_SCORES))
def test_a_route_is_its_twin(isa: str, data: st.DataObject, seed: int, score: str) -> None:
    biased = data.draw(st.booleans())
    groups, size = data.draw(st.integers(1, 9)), data.draw(st.integers(1 + biased, 40))
    groups_used = data.draw(st.integers(1, groups))
    used = data.draw(st.integers(1, min(20, groups_used * size)))
    rng = np.random.default_rng(seed)
    logits = (rng.standard_normal(groups * size) * data.draw(st.sampled_from([1, 40]))).astype(F32)
    if data.draw(st.booleans()):
        logits = np.round(logits)  # many are equal
    odd = data.draw(st.lists(st.sampled_from([np.nan, np.inf, -np.inf]), max_size=3))
    logits[rng.integers(0, logits.size, len(odd))] = odd
    bias = rng.standard_normal(logits.size).astype(F32) if biased else None
    more = (used, score, data.draw(st.booleans()), rng.uniform(0.1, 3), groups, groups_used)
    check_bits(route(isa, logits, bias, *more), twin.route(isa, logits, bias, *more))


@pytest.mark.parametrize("score", native.ROUTE_SCORES)
def test_ties_go_to_the_lowest_expert(isa: str, score: str) -> None:
    assert route(isa, np.zeros(40, F32), None, 3, score)[:3].tolist() == [0, 1, 2]


@pytest.mark.parametrize("score", native.ROUTE_SCORES)
def test_what_is_no_number_is_chosen_last_and_every_choice_is_an_expert(
    isa: str, score: str
) -> None:
    logits = np.array([np.nan, -np.inf, 3, np.inf, np.nan, 0], F32)
    for used in range(1, 7):
        chosen = route(isa, logits, None, used, score)[:used]
        assert sorted({*chosen.tolist()}) == sorted(chosen.tolist())
        assert all(0 <= expert < 6 for expert in chosen)
    nothing = route(isa, np.full(6, np.nan, F32), None, 2, score)
    assert nothing[:2].tolist() == [0, 1]
    assert np.isnan(nothing[2:]).all()


def test_a_group_whose_best_two_have_no_sum_is_chosen_last(isa: str) -> None:
    logits = np.array([np.inf, -np.inf, 1, 1, 2, 2], F32)
    found = route(isa, logits, np.zeros(6, F32), 2, "softmax_of_chosen", groups=3)
    assert found[:2].tolist() == [4, 5]


def test_scores_that_are_all_0_give_factors_of_0(isa: str) -> None:
    logits = np.full(6, -1000, F32)
    assert route(isa, logits, None, 2, "sigmoid", True, 2.5).tolist() == [0, 1, 0, 0]


@quick
@given(n=st.integers(1, 300), seed=st.integers(0, 2**32 - 1))
def test_a_scaled_row_is_added_with_one_rounding(isa: str, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((2, n)).astype(F32)
    factor = F32(rng.standard_normal())
    out = guarded(y)
    native.add_scaled(isa, out, guarded(x), float(factor))
    check_bits(out, fma(x, factor, y, isa != "base"))


REFUSED: dict[str, tuple[tuple[int, int], dict[str, Any], str]] = {
    "more than there are": ((4, 8), {}, "out: expected 1 to 8"),
    "odd": ((4, 3), {}, "out: expected 2 values, got 3"),
    "groups": ((4, 2), {"groups": 3}, "groups: expected a divisor of 4, got 3"),
    "groups used": ((4, 2), {"groups": 2, "groups_used": 3}, "groups_used: expected 1 to 2"),
    "bias": ((4, 2), {"choice_bias": np.zeros(3, F32)}, "choice_bias: expected 4 values, got 3"),
    "score": ((4, 2), {"score": 3}, "score: expected 0 to 2, got 3"),
    "groups of one": (
        (4, 2), {"groups": 4, "choice_bias": np.zeros(4, F32)},
        "experts of a group, beside a choice_bias: expected 2 to 4, got 1",
    ),
    "many experts": ((1025, 2), {}, "logits: expected 1 to 1024, got 1025"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(isa: str, name: str) -> None:
    (experts, out), more, message = REFUSED[name]
    arguments: dict[str, Any] = {
        "choice_bias": None, "score": 0, "renormalise": False, "scale": 1.0, "groups": 1,
        "groups_used": 1, **more,
    }  # fmt: skip
    size = out + 1 if name == "more than there are" else out
    with pytest.raises(ValueError, match=message):
        native.route(isa, np.zeros(size, F32), np.zeros(experts, F32), **arguments)
