"""The native interpreter on layer groups: their own block tables, widths and windows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from octavo.batch import Asked, Batch, Want, make_batch
from octavo.kernels import native
from octavo.program.builder import ProgramBuilder
from octavo.program.ops import KVSpec, Value, WeightSpec
from octavo.program.program import Program
from octavo.program.reference import ReferenceInterpreter
from octavo.weights.ggml_type import GGMLType
from tests.program.one_sequence import check_near, tokens_of
from tests.tiny import make_runner, random_model

POOL = native.ThreadPool(2)
TOKENS = tokens_of(300)


def two_groups() -> Program:
    """Layers of two groups in turns: all tokens, then a window; no two widths or counts alike."""
    p = ProgramBuilder(rope_frequencies=[10000.0 ** (-i / 8) for i in range(8)])
    specs = KVSpec(2, 32, 16), KVSpec(1, 48, 32, window=20)
    groups = [p.kv_group(spec) for spec in specs]
    h = p.embed(WeightSpec("table", (300, 64)))

    def linear(x: Value, name: str, rows: int, add: Value | None = None) -> Value:
        return p.linear(x, WeightSpec(name, (rows, x.width)), add=add)

    for i in range(4):
        spec, heads = specs[i % 2], (4, 3)[i % 2]
        x = p.rms_norm(h, WeightSpec(f"{i}.norm", (64,)), 1e-5)
        q = p.rope(linear(x, f"{i}.q", heads * spec.k_dim), heads=heads, style="half")
        k = linear(x, f"{i}.k", spec.kv_heads * spec.k_dim)
        k = p.rope(k, heads=spec.kv_heads, style="half")
        v = linear(x, f"{i}.v", spec.kv_heads * spec.v_dim)
        a = p.attention(q, k, v, heads=heads, group=groups[i % 2], scale=0.2)
        h = linear(a, f"{i}.o", 64, add=h)
    return p.logits(h, WeightSpec("head", (300, 64)))


def two_sequences(first: tuple[int, int], count: tuple[int, int]) -> Batch:
    """`count` rows of each from `first` on, in other blocks of each group."""
    spans = [(TOKENS[f : f + c], f) for f, c in zip(first, count, strict=True)]
    rows = sum(count)
    batch = make_batch(
        spans, [[[9, 4, 6], [3, 8, 1]]] * 2, range(rows), [Asked(Want.LOGITS)] * rows
    )
    tables = np.stack([batch.block_tables[0], batch.block_tables[1][::-1] + 20])
    return replace(batch, block_tables=tables)


@pytest.mark.parametrize("fuse", [True, False])
def test_layer_groups_of_other_widths_and_a_window_equal_the_reference(fuse: bool) -> None:
    model = random_model(two_groups(), POOL, type=GGMLType.F32)
    runner = make_runner(model, POOL, kv_dtype="f32", fuse=fuse)
    assert runner.op_names.count("QKV") == (4 if fuse else 0)
    reference = ReferenceInterpreter(model.program, model.exact, num_blocks=64)
    for first, count in (((0, 0), (60, 25)), ((60, 25), (9, 40))):
        batch = two_sequences(first, count)
        check_near(runner.run(batch).logits, reference.run(batch).logits)
    for storage, tables in zip(runner.storages, batch.block_tables, strict=True):
        pages = np.frombuffer(storage.memory, np.uint8).reshape(storage.num_blocks, -1)
        assert np.flatnonzero(pages.any(axis=1)).tolist() == sorted(tables.flatten())


def test_only_blocks_that_the_window_left_behind_may_be_missing() -> None:
    model = random_model(two_groups(), POOL, type=GGMLType.F32)
    runner = make_runner(model, POOL, kv_dtype="f32")
    runner.run(two_sequences((0, 0), (60, 60)))
    later = two_sequences((60, 60), (9, 9))  # the first row sees 41 to 60: no token of block 0
    want = runner.run(later).logits
    later.block_tables[1, :, 0] = -1
    assert np.array_equal(runner.run(later).logits, want)
    early = two_sequences((50, 50), (20, 20))  # and here 31 to 50
    early.block_tables[1, 1, 0] = -1
    last = runner.num_blocks[1] - 1
    with pytest.raises(ValueError, match=f"block_tables: expected 0 to {last}, got -1"):
        runner.run(early)
