"""The sampler: its distribution over a fixed grid of u, its filters one by one, and its twin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from octavo.kernels import available_isas, native
from tests.kernels import rows_twin as twin
from tests.kernels.exact import F32, Floats
from tests.kernels.guard import guarded
from tests.kernels.rows_twin import some_logits

INF = np.inf
pytestmark = pytest.mark.parametrize("isa", available_isas())
quick = settings(max_examples=40, deadline=None, derandomize=True)


def draw_all(isa: str, logits: Floats, places: Iterable[float], **filters: Any) -> list[int]:
    """Nothing is filtered unless asked for; every array ends at a page that nobody may touch."""
    row = guarded(logits)
    scratch = guarded(np.full(native.sample_scratch(logits.size), 2**64 - 1, np.uint64))
    every = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0} | filters
    return [native.sample(isa, row, u=u, scratch=scratch, **every) for u in places]


def draw(isa: str, logits: Floats, u: float, **filters: Any) -> int:
    return draw_all(isa, logits, [u], **filters)[0]


def counts(isa: str, logits: Floats, draws: int = 4000, **filters: Any) -> NDArray[np.int64]:
    """How often each token comes when u walks evenly over [0, 1)."""
    tokens = draw_all(isa, logits, (np.arange(draws) + 0.5) / draws, **filters)
    return np.bincount(tokens, minlength=logits.size)


def drawn(isa: str, logits: Floats, draws: int, **filters: Any) -> list[int]:
    """The tokens that come at all."""
    return np.flatnonzero(counts(isa, logits, draws, **filters)).tolist()


def softmax(logits: Floats, temperature: float = 1.0) -> NDArray[np.float64]:
    p: NDArray[np.float64] = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    p /= p.sum()
    return p


@pytest.mark.parametrize("temperature", [0.2, 1.0, 3.0])
def test_even_steps_of_u_give_each_token_its_share_within_one(isa: str, temperature: float) -> None:
    logits = some_logits(np.random.default_rng(1), 50)
    got = counts(isa, logits, temperature=temperature)
    # an interval of length N*p holds N*p points of the grid within 1; weights are right to 2e-6
    assert np.all(np.abs(got - 4000 * softmax(logits, temperature)) <= 1.01)


def test_tokens_come_in_ascending_order_of_u(isa: str) -> None:
    logits = some_logits(np.random.default_rng(2), 300)
    tokens = draw_all(isa, logits, np.linspace(0, 1, 200, endpoint=False))
    assert tokens == sorted(tokens)
    assert draw(isa, logits, 0.0) == 0
    assert draw(isa, logits, np.nextafter(1, 0)) == 299


def test_top_k_keeps_k_and_breaks_ties_by_token(isa: str) -> None:
    logits = np.array([1.0, 3.0, 1.0, 1.0, 2.0], F32)
    got = counts(isa, logits, top_k=3)
    assert np.flatnonzero(got).tolist() == [0, 1, 4]
    assert np.all(np.abs(got[[0, 1, 4]] - 4000 * softmax(logits[[0, 1, 4]])) <= 1.01)
    assert drawn(isa, logits, 50, top_k=1) == [1]
    assert drawn(isa, logits, 4000, top_k=99) == [0, 1, 2, 3, 4]


def test_top_k_one_is_the_argmax_even_among_nearly_equal_logits(isa: str) -> None:
    logits = np.full(2000, 10.0, F32)
    logits[1234] = np.nextafter(F32(10), F32(11))
    assert draw(isa, logits, 0.999, top_k=1, temperature=100.0) == 1234


@pytest.mark.parametrize(
    ("shares", "filters", "kept"),
    [
        # top_p keeps the smallest set that holds it, and cuts ties at the lowest tokens
        ([0.15, 0.5, 0.05, 0.3], {"top_p": 0.0}, [1]),
        ([0.15, 0.5, 0.05, 0.3], {"top_p": 0.4}, [1]),
        ([0.15, 0.5, 0.05, 0.3], {"top_p": 0.6}, [1, 3]),
        ([0.15, 0.5, 0.05, 0.3], {"top_p": 0.9}, [0, 1, 3]),
        ([0.15, 0.5, 0.05, 0.3], {"top_p": 1.0}, [0, 1, 2, 3]),
        ([1.0] * 64, {"top_p": 0.25}, list(range(16))),
        # min_p is relative to the best
        ([0.6, 0.2, 0.11, 0.09], {"min_p": 0.16}, [0, 1, 2]),
        ([0.6, 0.2, 0.11, 0.09], {"min_p": 1.0}, [0]),
        # of the three that top_k leaves, 0.4 / 0.9 < 0.6 <= 0.7 / 0.9: two hold top_p
        ([0.4, 0.3, 0.2, 0.1], {"top_k": 3, "top_p": 0.6}, [0, 1]),
        # without top_k, 0.7 of 1.0 does not hold 0.75; after it, 0.7 / 0.9 does
        ([0.4, 0.3, 0.2, 0.1], {"top_p": 0.75}, [0, 1, 2]),
        ([0.4, 0.3, 0.2, 0.1], {"min_p": 0.4, "top_p": 0.75}, [0, 1]),
    ],
)
def test_filters_apply_in_order_min_p_then_top_k_then_top_p(
    isa: str, shares: list[float], filters: dict[str, Any], kept: list[int]
) -> None:
    assert drawn(isa, np.log(np.array(shares, F32)), 640, **filters) == kept


def test_masked_and_nan_tokens_are_never_drawn(isa: str) -> None:
    logits = np.full(5000, -INF, F32)
    logits[[17, 4999]] = [1.0, 1.0]
    logits[[3, 4000]] = np.nan
    for top_k in (0, 50):
        assert {draw(isa, logits, u, top_k=top_k) for u in (0.0, 0.4, 0.6, 0.999)} == {17, 4999}
    assert draw(isa, np.full(40, -INF, F32), 0.5) == -1
    assert draw(isa, np.full(40, np.nan, F32), 0.5) == -1


def test_infinite_and_huge_logits_and_tiny_temperatures_stay_defined(isa: str) -> None:
    logits = np.array([1.0, INF, 2.0, INF], F32)
    assert {draw(isa, logits, u) for u in (0.0, 0.49, 0.51, 0.99)} == {1, 3}
    assert draw(isa, np.array([-3e38, 3e38, 0], F32), 0.9) == 1
    assert draw(isa, np.array([1.0, 1.0000001, 1.0], F32), 0.5, temperature=1e-38) == 1
    far = np.array([0.0, 90.0, -90.0], F32)
    assert [draw(isa, far, u, temperature=1e30) for u in (0.1, 0.5, 0.9)] == [0, 1, 2]


@quick
@given(
    vocab=st.one_of(st.integers(1, 70), st.integers(1, 6000)),
    seed=st.integers(0, 2**32 - 1),
    steps=st.sampled_from([None, 2, 0.2]),
    holes=st.sampled_from([0, 0.5]),
    filters=st.fixed_dictionaries({
        "temperature": st.sampled_from([0.05, 0.7, 1.0, 10.0]),
        "top_k": st.sampled_from([0, 1, 2, 40, 1000]),
        "top_p": st.sampled_from([0.0, 0.1, 0.9, 0.999, 1.0]),
        "min_p": st.sampled_from([0.0, 0.01, 0.5]),
    }),
)  # fmt: skip
def test_sample_is_its_twin(
    isa: str, vocab: int, seed: int, steps: float | None, holes: float, filters: dict[str, Any]
) -> None:
    rng = np.random.default_rng(seed)
    logits = some_logits(rng, vocab, holes, steps)
    for u in (0.0, *rng.random(6), np.nextafter(1, 0)):
        assert draw(isa, logits, u, **filters) == twin.sample(isa, logits, u=u, **filters)


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (0, 0.95), (50, 1.0), (5000, 0.9)])
def test_sample_of_a_real_vocabulary_is_its_twin(isa: str, top_k: int, top_p: float) -> None:
    rng = np.random.default_rng(49152)
    logits = some_logits(rng, 49152)
    filters: dict[str, Any] = {"temperature": 0.8, "top_k": top_k, "top_p": top_p, "min_p": 0.0}
    for u in rng.random(20):
        assert draw(isa, logits, u, **filters) == twin.sample(isa, logits, u=u, **filters)


@pytest.mark.parametrize("filters", [{}, {"min_p": 0.01}, {"top_k": 40}, {"top_p": 0.9}])
def test_who_knows_the_likeliest_token_draws_the_same(isa: str, filters: dict[str, Any]) -> None:
    rng = np.random.default_rng(4)
    for vocab in (1, 17, 1024, 5000):
        logits = some_logits(rng, vocab, holes=0.2, steps=2)
        logits[rng.integers(vocab)] = 9.0
        places = [0.0, *rng.random(9), np.nextafter(1, 0)]
        for row in (logits, np.where(logits == logits.max(), F32(INF), logits)):
            known = draw_all(isa, row, places, likeliest=int(row.argmax()), **filters)
            assert known == draw_all(isa, row, places, **filters)
    for nothing in (-INF, np.nan):
        assert draw(isa, np.full(40, nothing, F32), 0.5, likeliest=0, **filters) == -1


def test_candidates_in_token_order_draw_as_the_whole_row_does(isa: str) -> None:
    rng = np.random.default_rng(3)
    logits = some_logits(rng, 9000)
    ids, values = np.zeros(64, np.int32), np.zeros(64, F32)
    native.top_k_tile(isa, ids, values, logits, 0)
    tokens = np.sort(ids)
    for u in rng.random(50):
        few = draw(isa, logits[tokens], u, top_k=40, top_p=0.9)
        assert tokens[few] == draw(isa, logits, u, top_k=40, top_p=0.9)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("temperature", 0.0, "temperature: expected more than 0, got 0"),
        ("temperature", float("nan"), "temperature: expected more than 0, got nan"),
        ("temperature", INF, "temperature: expected a finite number, got inf"),
        ("top_k", -1, r"top_k: expected 0 \(all\) or more, got -1"),
        ("top_p", 1.5, "top_p: expected 0 to 1, got 1.5"),
        ("min_p", -0.1, "min_p: expected 0 to 1, got -0.1"),
        ("u", 1.0, "u: expected 0 to 1, less than 1, got 1"),
    ],
)
def test_values_out_of_range_are_refused(isa: str, field: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw(isa, np.zeros(9, F32), **({"u": 0.5} | {field: value}))


def test_bad_arrays_are_refused_by_name(isa: str) -> None:
    scratch = np.zeros(native.sample_scratch(9), np.uint64)
    with pytest.raises(ValueError, match="scratch: expected at least 48 values, got 24"):
        native.sample(isa, np.zeros(17, F32), 1.0, 0, 1.0, 0.0, 0.5, scratch)
    with pytest.raises(ValueError, match="logits: expected 1 to 524288, got 524289"):
        native.sample(isa, np.zeros(524289, F32), 1.0, 0, 1.0, 0.0, 0.5, scratch)
    for outside in (-1, 9):
        with pytest.raises(ValueError, match=f"likeliest: expected 0 to 8, got {outside}"):
            draw(isa, np.zeros(9, F32), 0.5, likeliest=outside)
    with pytest.raises(TypeError):
        draw(isa, np.zeros(9), 0.5)  # type: ignore[arg-type]
