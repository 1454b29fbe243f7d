"""Figures of a load: against sums made by hand, and percentiles against their definition."""

from __future__ import annotations

import json
import math
import random
from fractions import Fraction
from statistics import fmean, median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.bench.server_load.asks import Ask
from octavo.bench.server_load.load import Load
from octavo.bench.server_load.stream import AskError, Reply, Usage
from octavo.bench.server_load.summary import Times, reasons, summarize, times

SECONDS = st.lists(st.floats(0, 1e4), min_size=1, max_size=300)


@given(SECONDS)
def test_percentiles_are_what_they_are_called(seconds: list[float]) -> None:
    found = times(seconds)
    assert found is not None
    assert found.mean == pytest.approx(1e3 * fmean(seconds))
    assert found.median == pytest.approx(1e3 * median(seconds))
    # Between the two values around 99 % of the way from the least to the largest.
    place = Fraction(99 * (len(seconds) - 1), 100)
    low, high = (sorted(seconds)[edge] for edge in (math.floor(place), math.ceil(place)))
    expected = low + float(place - math.floor(place)) * (high - low)
    assert found.p99 == pytest.approx(1e3 * expected)
    assert found.median <= found.p99 <= 1e3 * max(seconds) * (1 + 1e-12)


@given(SECONDS, st.randoms())
def test_order_changes_no_percentile(seconds: list[float], draw: random.Random) -> None:
    shuffled = draw.sample(seconds, len(seconds))
    one, other = times(seconds), times(shuffled)
    assert (one.median, one.p99) == (other.median, other.p99)


def test_nothing_has_no_times() -> None:
    assert times([]) is None


def load() -> Load:
    return Load(
        (
            Reply(0.0, (0.5, 1.0, 1.5), Usage(100, 3, 60)),
            AskError("HTTP 400: the prompt has 3,000 tokens"),
            Reply(1.0, (2.0,), Usage(20, 1, None)),
            AskError("its answer broke off"),
            AskError("HTTP 400: the prompt has 4,123 tokens"),
        ),
        seconds=2.0,
    )


ASKS = [Ask("p", tokens) for tokens in (3, 50, 4, 50, 50)]


def test_a_load_against_sums_made_by_hand() -> None:
    found = summarize(ASKS, load())
    assert (found.completed, found.failed, found.duration) == (2, 3, 2.0)
    assert (found.total_input_tokens, found.total_output_tokens) == (120, 4)
    assert (found.total_cached_tokens, found.asked_output_tokens) == (60, 7)
    assert (found.request_throughput, found.output_throughput) == (1, 2)
    assert found.total_token_throughput == 62
    assert found.ttft == Times(mean=750, median=750, p99=995)
    assert found.tpot == found.itl == Times(500, 500, 500)
    assert found.e2el == Times(mean=1250, median=1250, p99=1495)


def test_a_load_of_failures_has_no_times_and_tells_why() -> None:
    found = summarize(ASKS[:1], Load((AskError("no"),), 1.0))
    assert (found.completed, found.failed, found.reasons) == (0, 1, (("no", 1),))
    assert (found.ttft, found.tpot, found.itl, found.e2el) == (None, None, None, None)
    assert (found.output_throughput, found.total_cached_tokens) == (0, None)


def test_json_has_the_names_of_vllm_and_no_number_that_json_has_not() -> None:
    found = json.loads(json.dumps(summarize(ASKS, load()).to_dict(), allow_nan=False))
    assert found["median_ttft_ms"] == 750
    assert found["p99_e2el_ms"] == 1495
    names = {f"{f}_{n}_ms" for f in ("mean", "median", "p99") for n in ("ttft", "tpot", "itl")}
    assert names < found.keys()
    assert found["failures"][0] == {
        "reason": "HTTP 400: the prompt has 3,000 tokens",
        "requests": 2,
    }
    empty = summarize([], Load((), 1.0)).to_dict()
    assert json.loads(json.dumps(empty, allow_nan=False))["mean_tpot_ms"] is None


def test_each_reason_is_told_once_the_most_frequent_first() -> None:
    errors = [AskError(text) for text in ("a", "b 1", "b 22", "a 5 b", "b 3,000.5", "a")]
    assert reasons(errors) == [("b 1", 3), ("a", 2), ("a 5 b", 1)]
    assert reasons([]) == []
