"""Bits with many query heads of one KV head, and with windows and a softcap together: the same in
any chunks, on any threads, in any company."""

from __future__ import annotations

import numpy as np
import pytest

from octavo.batch import Asked, Want, make_batch
from octavo.engine.runner import Runner
from octavo.kernels import native
from octavo.program.ops import KVSpec
from octavo.weights.ggml_type import GGMLType
from tests.exactness.programs import Grouped, Latent, Shape, build
from tests.tiny import all_logits, make_runner, random_model

VOCAB = 300
TOKENS = [int(t) for t in np.random.default_rng(5).integers(0, VOCAB, 560)]  # three chunks
POOLS = {n: native.ThreadPool(n) for n in (1, 2, 3)}
SHAPES: dict[str, Shape] = {
    "windows and a softcap": Grouped(
        (KVSpec(2, 32, 32, window=100), KVSpec(2, 32, 32)), 2, VOCAB, softcap=2.0
    ),
    "no head turns": Grouped(
        (KVSpec(2, 32, 32, window=100), KVSpec(2, 32, 32)), 2, VOCAB, turned=False
    ),
    "slopes": Grouped((KVSpec(2, 32, 32),), 1, VOCAB, queries=3, turned=False, slopes="plain"),
    "rounded slopes, a window and a softcap": Grouped(
        (KVSpec(1, 32, 32), KVSpec(1, 32, 32, window=300)), 2, VOCAB, queries=5, softcap=2.0,
        slopes="rounded",
    ),
    "17 heads": Grouped((KVSpec(1, 32, 32),), 1, VOCAB, queries=17),
    "25 heads, a window and a softcap": Grouped(
        (KVSpec(1, 16, 32, window=70),), 1, VOCAB, queries=25, softcap=2.0
    ),
    "48 heads": Grouped((KVSpec(1, 16, 16),), 1, VOCAB, queries=48),
    "71 heads": Grouped((KVSpec(1, 16, 32),), 1, VOCAB, queries=71),
    "two times 30 heads": Grouped((KVSpec(2, 16, 16),), 1, VOCAB, queries=30),
    "128 heads": Grouped((KVSpec(1, 16, 16),), 1, VOCAB, queries=128),
    "layers that store nothing": Grouped(
        (KVSpec(2, 32, 32, window=100), KVSpec(1, 32, 48)), 3, VOCAB, sharing=3, from_file=True
    ),
    "16 heads over one latent row": Latent(16, 1, VOCAB, latent=512, turned=64, plain=128),
    "128 heads over one latent row": Latent(128, 1, VOCAB, narrow=32),
}  # fmt: skip


def runner_of(name: str, threads: int, kv: str = "bf16") -> Runner:
    model = random_model(build(SHAPES[name]), POOLS[threads], type=GGMLType.Q8_0)
    runner = make_runner(model, POOLS[threads], num_blocks=80, max_rows=640, kv_dtype=kv)
    own = 0 if isinstance(SHAPES[name], Latent) else SHAPES[name].num_layers
    assert runner.op_names.count("QKV") == own
    return runner


@pytest.mark.parametrize("kv", ["bf16", "f32", "int8", "int4"])
@pytest.mark.parametrize("name", SHAPES)
def test_chunks_and_threads(name: str, kv: str) -> None:
    """Each way of cutting on two numbers of threads, each number with two ways and more."""
    short, tiles, late = [1, 2, 9, 64, 65, 300], [255, 256, 257], [552, 555, 559]
    runner = runner_of(name, 1, kv)
    want = all_logits(runner, TOKENS)
    assert np.isfinite(want).all()
    for threads, ways in ((1, (short, tiles, late)), (2, ([], tiles, late)), (3, ([], short))):
        runner = runner if threads == 1 else runner_of(name, threads, kv)
        for cuts in ways:
            assert np.array_equal(all_logits(runner, TOKENS, cuts), want)


@pytest.mark.parametrize("name", SHAPES)
def test_company(name: str) -> None:
    """Three sequences of other lengths, one of them decoding, beside one alone."""
    runner = runner_of(name, 3)
    spans = [(TOKENS[:300], 299), (TOKENS[100:400], 260), (TOKENS[7:90], 0)]
    tables = [list(range(20 * i, 20 * i + 20)) for i in range(3)]
    for (tokens, first), table in zip(spans, tables, strict=True):
        if first:
            all_logits(runner, tokens[:first], table=table)
    new = [(tokens[first:], first) for tokens, first in spans]
    rows = sum(len(tokens) for tokens, _ in new)
    batch = make_batch(new, [tables] * len(runner.groups), range(rows), [Asked(Want.LOGITS)] * rows)
    together = runner.run(batch).logits
    one = runner_of(name, 1)
    alone = [all_logits(one, tokens)[first:] for tokens, first in spans]
    assert np.array_equal(together, np.concatenate(alone))
