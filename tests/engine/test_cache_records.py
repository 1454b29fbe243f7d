"""What is recorded of a request's use of the cache: every reason for a miss that can occur in one
process, with the tokens that matched and the one that did not."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from octavo.engine.engine import Engine
from octavo.records import CacheReason, CacheRecord, CacheSource
from octavo.request import RequestOptions
from tests.engine.busy import MODEL, POOL, TEXT
from tests.engine.tiny_engine import answered, tiny_engine

OTHER = TEXT[::-1]


def cached(engine: Engine, tokens: list[int], salt: str = "", **params: Any) -> CacheRecord:
    """The record of a request that is run to its end."""
    options = RequestOptions(cache_salt=salt)
    request = answered(engine, tokens, options, max_tokens=1, **params)
    assert request.cache is not None
    return request.cache


def summary(record: CacheRecord) -> tuple[int, CacheReason | None, int | None]:
    return record.matched_tokens, record.reason, record.diverged_at


def test_a_first_prompt_is_cold_and_others_diverge_at_a_token() -> None:
    engine = tiny_engine(MODEL, POOL)
    assert summary(cached(engine, TEXT[:40])) == (0, CacheReason.COLD, 0)
    assert summary(cached(engine, [*TEXT[:35], 3, 4])) == (35, CacheReason.DIVERGED, 35)
    assert summary(cached(engine, OTHER[:40])) == (0, CacheReason.DIVERGED, 0)
    assert summary(cached(engine, TEXT)) == (40, CacheReason.DIVERGED, 40)


def test_a_prompt_found_whole_has_no_reason_and_runs_one_row() -> None:
    engine = tiny_engine(MODEL, POOL)
    cached(engine, TEXT[:40])
    record = cached(engine, TEXT[:40])
    assert summary(record) == (39, None, None)
    assert record.source is CacheSource.PROCESS
    assert [(r.kv_read_tokens, r.computed_tokens) for r in engine.records] == [(0, 40), (39, 1)]
    assert summary(cached(engine, TEXT[:20])) == (19, None, None)
    # All but the last token, which would have to run anyway: nothing more could be reused.
    assert summary(cached(engine, [*TEXT[:39], 3])) == (39, None, None)


def test_a_prompt_of_one_token_could_never_reuse_anything() -> None:
    engine = tiny_engine(MODEL, POOL)
    for _ in range(2):  # found or not, it runs
        record = cached(engine, TEXT[:1])
        assert summary(record) == (0, None, None)
        assert record.source is CacheSource.NONE


def test_under_another_salt_nothing_is_found_the_first_time() -> None:
    engine = tiny_engine(MODEL, POOL)
    cached(engine, TEXT[:40], salt="a")
    assert summary(cached(engine, TEXT[:40], salt="b")) == (0, CacheReason.SALT, 0)
    assert summary(cached(engine, TEXT[:40], salt="b")) == (39, None, None)
    assert summary(cached(engine, TEXT[:40])) == (0, CacheReason.COLD, 0)


@pytest.mark.parametrize("option", ["prefix_cache", "kv_cache"])
def test_disabled_is_its_own_reason(option: str) -> None:
    options: dict[str, Any] = {option: False}
    engine = tiny_engine(MODEL, POOL, **options)
    for _ in range(2):
        record = cached(engine, TEXT[:40])
        assert summary(record) == (0, CacheReason.DISABLED, None)
        assert record.source is CacheSource.NONE


def test_log_probabilities_of_the_prompt_need_all_rows() -> None:
    engine = tiny_engine(MODEL, POOL)
    cached(engine, TEXT[:40])
    for length in (1, 40):
        record = cached(engine, TEXT[:length], prompt_logprobs=0)
        assert summary(record) == (0, CacheReason.NEEDS_ALL_ROWS, None)


@pytest.mark.parametrize("found", [16, 18])
def test_what_was_known_once_is_said_to_be_evicted(found: int) -> None:
    """Four blocks of 16. The other prompt takes three: the empty one, and the tail of the first.
    A third prompt may share two tokens of the second block, which was evicted whole."""
    engine = tiny_engine(MODEL, POOL, num_blocks=4, block_size=16)
    cached(engine, TEXT[:48])
    cached(engine, OTHER[:40])
    assert engine.counts()["kv_blocks_evicted"] == 2
    if found > 16:
        cached(engine, [*TEXT[:found], 3])
    assert summary(cached(engine, TEXT[:48])) == (found, CacheReason.EVICTED, found)


def test_the_time_that_was_saved_is_that_of_computing_it() -> None:
    """None before anything was measured; then more for more tokens."""
    ticks = count()
    engine = tiny_engine(MODEL, POOL, clock=lambda: next(ticks) / 1e3)
    assert cached(engine, TEXT[:60]).saved_ms == 0.0
    first, second = (cached(engine, [*TEXT[:n], 7, 8]).saved_ms or 0.0 for n in (20, 40))
    assert 2 * first <= second < 2.5 * first  # attention of the later tokens sees more
    of_39 = engine.budget.seconds(0, 39)
    assert of_39 is not None
    record = cached(engine, TEXT[:40])  # found whole: its last token is computed in any case
    assert (record.matched_tokens, record.saved_ms) == (39, of_39 * 1e3)
