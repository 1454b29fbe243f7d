"""The sampler: its distribution over a fixed grid of u, its filters one by one, and its twin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.kernels import available_isas, native
from tests.kernels import rows_twin as twin
from tests.kernels.guard import guarded
from tests.kernels.rows_twin import some_logits

F32 = np.float32
INF = np.inf
each_isa = pytest.mark.parametrize("isa", available_isas())
quick = settings(max_examples=40, deadline=None, derandomize=True)


def draw(isa, logits, u, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    scratch = guarded(np.full(native.sample_scratch(logits.size), 2**64 - 1, np.uint64))
    return native.sample(isa, guarded(logits), temperature, top_k, top_p, min_p, u, scratch)


def counts(isa, logits, draws=4000, **filters):
    """How often each token comes when u walks evenly over [0, 1)."""
    seen = np.zeros(logits.size, np.int64)
    scratch = np.zeros(native.sample_scratch(logits.size), np.uint64)
    args = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0} | filters
    for i in range(draws):
        seen[native.sample(isa, logits, **args, u=(i + 0.5) / draws, scratch=scratch)] += 1
    return seen


def softmax(logits, temperature=1.0):
    p = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    return p / p.sum()


@each_isa
@pytest.mark.parametrize("temperature", [0.2, 1.0, 3.0])
def test_an_even_grid_of_u_gives_each_token_its_share_within_one(isa, temperature):
    logits = some_logits(np.random.default_rng(1), 50)
    got = counts(isa, logits, temperature=temperature)
    # an interval of length N*p holds N*p points of the grid within 1; weights are right to 2e-6
    assert np.all(np.abs(got - 4000 * softmax(logits, temperature)) <= 1.01)


@each_isa
def test_tokens_come_in_ascending_order_of_u(isa):
    logits = some_logits(np.random.default_rng(2), 300)
    tokens = [draw(isa, logits, u) for u in np.linspace(0, 1, 200, endpoint=False)]
    assert tokens == sorted(tokens)
    assert draw(isa, logits, 0.0) == 0
    assert draw(isa, logits, np.nextafter(1, 0)) == 299


@each_isa
def test_top_k_keeps_k_and_breaks_ties_by_token(isa):
    logits = np.array([1.0, 3.0, 1.0, 1.0, 2.0], F32)
    got = counts(isa, logits, top_k=3)
    assert np.flatnonzero(got).tolist() == [0, 1, 4]
    assert np.all(np.abs(got[[0, 1, 4]] - 4000 * softmax(logits[[0, 1, 4]])) <= 1.01)
    assert np.flatnonzero(counts(isa, logits, 50, top_k=1)).tolist() == [1]
    assert np.flatnonzero(counts(isa, logits, top_k=99)).tolist() == [0, 1, 2, 3, 4]


@each_isa
def test_top_k_one_is_the_argmax_even_among_nearly_equal_logits(isa):
    logits = np.full(2000, 10.0, F32)
    logits[1234] = np.nextafter(F32(10), F32(11))
    assert draw(isa, logits, 0.999, top_k=1, temperature=100.0) == 1234


@each_isa
def test_top_p_keeps_the_smallest_set_that_holds_it(isa):
    logits = np.log(np.array([0.15, 0.5, 0.05, 0.3], F32))
    assert np.flatnonzero(counts(isa, logits, 200, top_p=0.4)).tolist() == [1]
    assert np.flatnonzero(counts(isa, logits, 200, top_p=0.6)).tolist() == [1, 3]
    assert np.flatnonzero(counts(isa, logits, 200, top_p=0.9)).tolist() == [0, 1, 3]
    assert np.flatnonzero(counts(isa, logits, 200, top_p=1.0)).tolist() == [0, 1, 2, 3]
    assert np.flatnonzero(counts(isa, logits, 200, top_p=0.0)).tolist() == [1]


@each_isa
def test_top_p_cuts_ties_at_the_lowest_tokens(isa):
    logits = np.zeros(64, F32)
    assert np.flatnonzero(counts(isa, logits, 640, top_p=0.25)).tolist() == list(range(16))


@each_isa
def test_min_p_is_relative_to_the_best(isa):
    logits = np.log(np.array([0.6, 0.2, 0.11, 0.09], F32))
    assert np.flatnonzero(counts(isa, logits, 400, min_p=0.16)).tolist() == [0, 1, 2]
    assert np.flatnonzero(counts(isa, logits, 400, min_p=1.0)).tolist() == [0]


@each_isa
def test_filters_apply_in_order_min_p_then_top_k_then_top_p(isa):
    logits = np.log(np.array([0.4, 0.3, 0.2, 0.1], F32))
    # of the three that top_k leaves, 0.4 / 0.9 < 0.6 <= 0.7 / 0.9: two hold top_p
    assert np.flatnonzero(counts(isa, logits, 400, top_k=3, top_p=0.6)).tolist() == [0, 1]
    # without top_k, 0.7 of 1.0 does not hold 0.75; after it, 0.7 / 0.9 does
    assert np.flatnonzero(counts(isa, logits, 400, top_p=0.75)).tolist() == [0, 1, 2]
    assert np.flatnonzero(counts(isa, logits, 400, min_p=0.4, top_p=0.75)).tolist() == [0, 1]


@each_isa
def test_masked_and_nan_tokens_are_never_drawn(isa):
    logits = np.full(5000, -INF, F32)
    logits[[17, 4999]] = [1.0, 1.0]
    logits[[3, 4000]] = np.nan
    tokens = {
        draw(isa, logits, u, **f) for u in (0.0, 0.4, 0.6, 0.999) for f in ({}, {"top_k": 50})
    }
    assert tokens == {17, 4999}
    assert draw(isa, np.full(40, -INF, F32), 0.5) == -1
    assert draw(isa, np.full(40, np.nan, F32), 0.5) == -1


@each_isa
def test_infinite_and_huge_logits_and_tiny_temperatures_stay_defined(isa):
    logits = np.array([1.0, INF, 2.0, INF], F32)
    assert {draw(isa, logits, u) for u in (0.0, 0.49, 0.51, 0.99)} == {1, 3}
    assert draw(isa, np.array([-3e38, 3e38, 0], F32), 0.9) == 1
    assert draw(isa, np.array([1.0, 1.0000001, 1.0], F32), 0.5, temperature=1e-38) == 1
    flat = [
        draw(isa, np.array([0.0, 90.0, -90.0], F32), u, temperature=1e30) for u in (0.1, 0.5, 0.9)
    ]
    assert flat == [0, 1, 2]


@each_isa
@quick
@given(
    vocab=st.one_of(st.integers(1, 70), st.integers(1, 6000)),
    seed=st.integers(0, 2**32 - 1),
    steps=st.sampled_from([None, 2, 0.2]),
    holes=st.sampled_from([0, 0.5]),
    temperature=st.sampled_from([0.05, 0.7, 1.0, 10.0]),
    top_k=st.sampled_from([0, 1, 2, 40, 1000]),
    top_p=st.sampled_from([0.0, 0.1, 0.9, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 0.01, 0.5]),
)
def test_sample_is_its_twin(isa, vocab, seed, steps, holes, temperature, top_k, top_p, min_p):
    rng = np.random.default_rng(seed)
    logits = some_logits(rng, vocab, holes, steps)
    for u in (0.0, *rng.random(6), np.nextafter(1, 0)):
        want = twin.sample(isa, logits, temperature, top_k, top_p, min_p, u)
        assert draw(isa, logits, u, temperature, top_k, top_p, min_p) == want


@each_isa
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (0, 0.95), (50, 1.0), (5000, 0.9)])
def test_sample_of_a_real_vocabulary_is_its_twin(isa, top_k, top_p):
    rng = np.random.default_rng(49152)
    logits = some_logits(rng, 49152)
    kept = logits.copy()
    for u in rng.random(20):
        assert draw(isa, logits, u, 0.8, top_k, top_p) == twin.sample(
            isa, kept, 0.8, top_k, top_p, 0, u
        )
    assert np.array_equal(logits, kept)


@each_isa
def test_candidates_in_token_order_draw_as_the_whole_row_does(isa):
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
def test_values_out_of_range_are_refused_by_name(field, value, message):
    args = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "u": 0.5} | {field: value}
    scratch = np.zeros(native.sample_scratch(9), np.uint64)
    with pytest.raises(ValueError, match=message):
        native.sample("base", np.zeros(9, F32), **args, scratch=scratch)


def test_bad_arrays_are_refused_by_name():
    scratch = np.zeros(native.sample_scratch(9), np.uint64)
    with pytest.raises(ValueError, match="scratch: expected at least 48 values, got 24"):
        native.sample("base", np.zeros(17, F32), 1.0, 0, 1.0, 0.0, 0.5, scratch)
    with pytest.raises(ValueError, match="logits: expected 1 to 262144, got 262145"):
        native.sample("base", np.zeros(262145, F32), 1.0, 0, 1.0, 0.0, 0.5, scratch)
    with pytest.raises(TypeError):
        native.sample("base", np.zeros(9), 1.0, 0, 1.0, 0.0, 0.5, scratch)
