"""Perplexity and divergence of KV dtypes on a tiny model, against sums over whole logits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from octavo.bench.kv_dtype import Measured, judge, no_verdict
from octavo.bench.kv_quality import Doubles, Quality, compare
from octavo.bench.subject import text_along
from octavo.engine.runner import Runner
from octavo.kernels import native
from tests.tiny import TINY, all_logits, make_runner, tiny_model

POOL = native.ThreadPool(1)
MODEL = tiny_model(TINY, POOL)
TOKENS = [int(t) for t in np.random.default_rng(9).integers(0, TINY.vocab_size, 120)]


def runner(dtype: str, **options: int) -> Runner:
    return make_runner(MODEL, POOL, kv_dtype=dtype, **options)


def log_probabilities(dtype: str) -> Doubles:
    logits: Doubles = all_logits(runner(dtype), TOKENS).astype(np.float64)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits


def test_figures_are_those_of_the_whole_logits_whatever_the_chunks() -> None:
    bf16, int8 = log_probabilities("bf16"), log_probabilities("int8")
    every = np.arange(len(TOKENS) - 1)
    perplexity = np.exp(-int8[every, TOKENS[1:]].mean())
    divergence = (np.exp(bf16) * (bf16 - int8)).sum(axis=1)[:-1]
    same = (bf16.argmax(axis=1) == int8.argmax(axis=1))[:-1]
    for rows in (7, 128):
        runners = {dtype: runner(dtype, max_rows=rows) for dtype in ("bf16", "int8")}
        found = compare(runners, TOKENS, window=200)["int8"]
        assert found.tokens == 119
        assert found.perplexity == pytest.approx(perplexity, rel=1e-5)
        assert found.kl_mean == pytest.approx(divergence.mean(), rel=0.02)
        assert found.kl_999 == pytest.approx(np.quantile(divergence, 0.999), rel=0.02)
        assert found.same_top == same.mean()
        assert 0 < found.kl_mean < found.kl_999


def test_the_first_dtype_is_what_others_are_held_against() -> None:
    found = compare({"f32": runner("f32"), "bf16": runner("bf16")}, TOKENS, window=64)
    first, second = found["f32"], found["bf16"]
    assert (first.perplexity_change, first.kl_mean, first.same_top) == (0, 0, 1)
    assert second.perplexity_change == second.perplexity / first.perplexity - 1 != 0


def test_a_window_begins_with_nothing_before_it_but_the_start() -> None:
    """Tokens of one window that stand in two, and the first of each behind BOS."""
    alone = compare({"bf16": runner("bf16")}, TOKENS[50:100], window=50, start=[1])["bf16"]
    assert alone.tokens == 50
    twice = compare({"bf16": runner("bf16")}, TOKENS[50:100] * 2, window=50, start=[1])["bf16"]
    assert twice.tokens == 100
    assert twice.perplexity == pytest.approx(alone.perplexity)


def quality(change: float, *, kl: float = 0.001, same: float = 0.99, at: float = 20.0) -> Quality:
    return Quality(at, change, kl, 10 * kl, same, 16000)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (quality(0.005, same=0.98), "safe"),
        (quality(-0.02), "safe"),
        (quality(0.0051), "usable"),
        (quality(0.001, same=0.9799), "usable"),
        (quality(0.03, kl=0.04), "usable"),
        (quality(0.0301), "not safe"),
        (quality(0.02, kl=0.0401), "not safe"),
    ],
)
def test_a_verdict_follows_from_perplexity_divergence_and_likeliest_tokens(
    found: Quality, verdict: str
) -> None:
    assert judge("int8", found, quality(0.0)) == verdict


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        (quality(0.0, at=1200.1), "the perplexity of bf16 is 1,200, so the model does not speak"),
        (quality(0.0, at=float("nan")), "logits are NaN with bf16 too"),
        (replace(quality(0.0), tokens=999), "999 tokens tell too little"),
    ],
)
def test_there_is_no_verdict_where_the_text_tells_nothing(reference: Quality, why: str) -> None:
    assert (no_verdict(reference) or "").startswith(why)
    assert judge("int8", reference, reference) is None
    assert no_verdict(quality(0.0, at=200.0)) is None


def test_what_is_no_smaller_than_bf16_is_not_judged() -> None:
    """Where float32 pages are far away from bf16's, these are off, and int8's are judged."""
    assert judge("f32", quality(0.02, kl=0.05), quality(0.0)) is None
    assert judge("bf16", quality(0.0), quality(0.0)) is None
    assert judge("k=f32,v=bf16", quality(0.0), quality(0.0)) is None
    assert judge("k=int8,v=int4", quality(0.0), quality(0.0)) == "safe"


def test_figures_that_are_no_numbers_are_none_as_json_has_them() -> None:
    nan, reference = float("nan"), quality(0.0)
    lost = replace(reference, perplexity=nan, perplexity_change=nan, kl_mean=nan, kl_999=nan)
    measured = Measured("int8", 384.0, 7, 100.0, lost, judge("int8", lost, reference))
    found = measured.to_dict()
    assert (found["perplexity"], found["perplexity_change"], found["kl_mean"]) == (None,) * 3
    assert (found["dtype"], found["token_bytes"], found["same_top"]) == ("int8", 384.0, 0.99)
    assert found["verdict"] == "not safe"


def test_the_text_that_comes_along_is_long_and_whole_paragraphs() -> None:
    text = text_along()
    assert text.startswith("ADVENTURE I. A SCANDAL IN BOHEMIA\n\n")
    assert text.endswith("\n")
    assert len(text.split()) > 13_000  # 18,125 tokens of SmolLM2
    assert "Gutenberg" not in text
