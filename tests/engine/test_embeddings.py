"""Embeddings: the bits of a request do not depend on its company, its chunks or the cache."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from octavo.batch import Want
from octavo.engine.decoding.pooled import embedding
from octavo.engine.engine import Engine
from octavo.engine.nouns import Request
from octavo.kernels import native
from octavo.program.reference import ReferenceInterpreter
from octavo.records import CacheReason
from octavo.request import Pooling, RequestOptions
from octavo.weights.ggml_type import GGMLType
from tests.engine.busy import MODEL, POOL, TEXT
from tests.engine.tiny_engine import add, answered, run, tiny_engine
from tests.program.one_sequence import batch_of, check_near
from tests.tiny import TINY, make_runner, tiny_model

HOW: list[Pooling] = ["last", "mean"]
LONG = [int(t) for t in np.random.default_rng(2).integers(0, TINY.vocab_size, 300)]


@cache
def hidden(tokens: tuple[int, ...]) -> NDArray[np.float32]:
    """(tokens, hidden) every row after the final norm, of all tokens in one forward."""
    rows = range(len(tokens))
    runner = make_runner(MODEL, POOL, max_rows=len(tokens))
    return runner.run(batch_of(tokens, rows, [Want.HIDDEN] * len(tokens))).hidden


def expected(tokens: list[int], pooling: Pooling) -> bytes:
    """In the plainest way there is."""
    rows = hidden(tuple(tokens))
    total = rows[-1]
    if pooling == "mean":
        total = rows[0]
        for row in rows[1:]:
            total = total + row
    exact = [float(x) for x in total]
    length = math.sqrt(math.fsum(x * x for x in exact))
    return np.array([x / length for x in exact], np.float32).tobytes()


def asked(engine: Engine, tokens: list[int], pooling: Pooling, salt: str = "") -> Request:
    return add(engine, tokens, RequestOptions(cache_salt=salt, pooling=pooling))


def found(request: Request) -> bytes:
    vector = embedding(request)
    assert vector is not None
    assert vector.dtype == np.float32
    assert vector.shape == (TINY.hidden_size,)
    assert abs(float(np.linalg.norm(vector.astype(np.float64))) - 1) < 1e-6
    return vector.tobytes()


@pytest.mark.parametrize("pooling", HOW)
@pytest.mark.parametrize("options", [{}, {"prefix_cache": False}, {"kv_cache": False}], ids=str)
def test_alone_in_company_and_in_any_chunks(pooling: Pooling, options: dict[str, Any]) -> None:
    texts = [LONG, LONG[:1], TEXT, LONG[5:133]]
    for max_rows in (300,) if "kv_cache" in options else (1, 7, 64, 129, 512):
        engine = tiny_engine(MODEL, POOL, max_rows=max_rows, step_ms=None, **options)
        asked_for = [asked(engine, text, pooling) for text in texts]
        chatting = add(engine, TEXT[:9], max_tokens=20, ignore_eos=True)
        run(engine)
        assert [found(r) for r in asked_for] == [expected(text, pooling) for text in texts]
        assert len(chatting.branches[0].completion_token_ids) == 20
        assert [r.branches[0].tokens for r in asked_for] == texts


def test_the_last_row_is_found_by_others_and_finds_what_they_left() -> None:
    engine = tiny_engine(MODEL, POOL)
    answered(engine, TEXT[:40], max_tokens=1)
    first, again = asked(engine, TEXT, "last"), asked(engine, TEXT, "last")
    run(engine)
    assert first.cache is not None
    assert first.cache.matched_tokens == 40
    assert found(first) == found(again) == expected(TEXT, "last")
    chat = answered(engine, TEXT, max_tokens=1)
    assert chat.cache is not None
    assert chat.cache.matched_tokens == len(TEXT) - 1


def test_a_mean_needs_all_rows_and_leaves_nothing() -> None:
    engine = tiny_engine(MODEL, POOL)
    answered(engine, TEXT[:40], max_tokens=1)
    cached = engine.kv.counts().blocks_cached
    request = asked(engine, TEXT, "mean")
    run(engine)
    assert request.cache is not None
    assert request.cache.reason is CacheReason.NEEDS_ALL_ROWS
    assert request.cache.matched_tokens == 0
    assert engine.kv.counts().blocks_cached == cached
    assert found(request) == expected(TEXT, "mean")


@pytest.mark.parametrize("pooling", HOW)
def test_what_ended_before_its_last_row_has_no_embedding(pooling: Pooling) -> None:
    engine = tiny_engine(MODEL, POOL, max_rows=8, step_ms=None)
    request = asked(engine, TEXT, pooling)
    engine.step()
    engine.finish(request, "abort")
    assert embedding(request) is None
    assert embedding(answered(engine, TEXT, max_tokens=1)) is None


@pytest.mark.parametrize("pooling", HOW)
def test_it_is_what_the_numpy_program_says(pooling: Pooling) -> None:
    """As near as its logits are, of float32 weights and pages."""
    pool = native.ThreadPool(1)
    model = tiny_model(TINY, pool, type=GGMLType.F32)
    engine = tiny_engine(model, pool, max_rows=16, kv_dtype="f32", step_ms=None)
    request = asked(engine, TEXT, pooling)
    run(engine)
    vector = embedding(request)
    assert vector is not None
    reference = ReferenceInterpreter(model.program, model.exact, num_blocks=64)
    rows = reference.run(batch_of(TEXT, range(len(TEXT)), [Want.HIDDEN] * len(TEXT))).hidden
    want = rows[-1] if pooling == "last" else rows.mean(axis=0)
    check_near(vector[None], (want / np.linalg.norm(want))[None])
