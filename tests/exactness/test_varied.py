"""Bits of a program of the ops that other families have: the same in any chunks, on any threads, in
any company; and its answers are tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from octavo.batch import Asked, Want, make_batch
from octavo.engine.runner import Runner
from octavo.kernels import native
from octavo.program.ops import KVSpec
from octavo.weights.ggml_type import GGMLType
from tests.engine.tiny_engine import answered, tiny_engine
from tests.exactness.programs import Grouped, grouped, windowed
from tests.tiny import all_logits, make_runner, random_model

VOCAB = 300
SHAPE = Grouped((KVSpec(2, 32, 32), windowed(100)), 2, VOCAB, softcap=2.0, varied=True, experts=5)
TOKENS = [int(t) for t in np.random.default_rng(5).integers(0, VOCAB, 560)]  # three chunks
POOLS = {n: native.ThreadPool(n) for n in (1, 2, 3)}


def runner_of(threads: int, type: GGMLType = GGMLType.Q8_0, **options: Any) -> Runner:
    model = random_model(grouped(SHAPE), POOLS[threads], type=type)
    return make_runner(model, POOLS[threads], num_blocks=60, max_rows=640, **options)


@pytest.mark.parametrize("type", [GGMLType.Q8_0, GGMLType.BF16])
def test_chunks_threads_and_fusing(type: GGMLType) -> None:
    want = all_logits(runner_of(1, type), TOKENS)
    assert np.isfinite(want).all()
    for threads, fuse in ((2, True), (3, True), (2, False)):
        runner = runner_of(threads, type, fuse=fuse)
        for cuts in ([], [1, 2, 9, 64, 65, 300], [552, 555, 559]):
            assert np.array_equal(all_logits(runner, TOKENS, cuts), want)


def test_company() -> None:
    """Three sequences of other lengths, one of them decoding, beside one alone."""
    runner = runner_of(3)
    spans = [(TOKENS[:300], 299), (TOKENS[100:400], 260), (TOKENS[7:90], 0)]
    tables = [list(range(20 * i, 20 * i + 20)) for i in range(3)]
    for (tokens, first), table in zip(spans, tables, strict=True):
        if first:
            all_logits(runner, tokens[:first], table=table)
    new = [(tokens[first:], first) for tokens, first in spans]
    rows = sum(len(tokens) for tokens, _ in new)
    batch = make_batch(new, [tables] * len(runner.groups), range(rows), [Asked(Want.LOGITS)] * rows)
    together = runner.run(batch).logits
    one = runner_of(1)
    alone = [all_logits(one, tokens)[first:] for tokens, first in spans]
    assert np.array_equal(together, np.concatenate(alone))


@pytest.mark.parametrize(
    "asked",
    [{"temperature": 0}, {"temperature": 5.0, "n": 4, "seed": 1}, {"beam_width": 4, "n": 4}],
)
def test_answers_are_tokens_whatever_the_head_has_beyond_them(asked: dict[str, Any]) -> None:
    model = random_model(grouped(SHAPE), POOLS[2], type=GGMLType.Q8_0)
    rows = np.arange(SHAPE.head_rows)
    model.exact["head.bias"][rows >= VOCAB] += 9  # the core's too: one array
    engine = tiny_engine(model, POOLS[2])
    request = answered(engine, TOKENS[:40], max_tokens=12, ignore_eos=True, **asked)
    drawn = {t for branch in request.branches for t in branch.completion_token_ids}
    assert 0 <= min(drawn) <= max(drawn) < VOCAB
    assert all_logits(make_runner(model, POOLS[2]), TOKENS[:40])[-1].argmax() >= VOCAB
