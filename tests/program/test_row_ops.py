"""Row-wise ops in whole programs: rope tables by name, norms of heads, scaled values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from octavo.kernels import KV_FORMATS, native
from octavo.program.builder import ProgramBuilder
from octavo.program.classes import classify
from octavo.program.cost import Work, cost, uniform_weights
from octavo.program.fuse import RowKind, fuse
from octavo.program.kv_bytes import PageFormats
from octavo.program.ops import KVSpec, Linear, Norm, Rope, Value, WeightSpec
from octavo.program.program import Program
from octavo.weights.ggml_type import GGMLType
from tests.program.one_sequence import check_near, reference_logits, tokens_of
from tests.tiny import all_logits, make_runner, random_model

POOL = native.ThreadPool(2)
TOKENS = tokens_of(300)
LOCAL, GLOBAL = (1.0, 0.25, 0.0625, 0.015625), tuple(10.0**-i for i in range(8))


def gemma_like(
    *, scale: float = 8.0, norms: bool = True, tables: int = 2, amplitude: float = 1.5
) -> Program:
    """Scaled embeddings, norms of the heads of q and k, and a rope table for every other layer."""
    p = ProgramBuilder(rope_frequencies=GLOBAL)
    if tables == 2:
        p.rope_table("local", LOCAL, amplitude)
    group = p.kv_group(KVSpec(2, 32, 32))
    h = p.scale(p.embed(WeightSpec("table", (300, 64))), scale)
    for i in range(2):
        table = "local" if tables == 2 and i == 1 else "default"
        x = p.rms_norm(h, WeightSpec(f"{i}.norm", (64,)), 1e-5)

        def heads_of(x: Value, name: str, heads: int, table: str) -> Value:
            y = p.linear(x, WeightSpec(name, (heads * 32, 64)))
            if norms:
                y = p.rms_norm(y, WeightSpec(f"{name}_norm", (32,)), 1e-6, heads=heads)
            return p.rope(y, heads=heads, style="half", table=table)

        q, k = heads_of(x, f"{i}.q", 4, table), heads_of(x, f"{i}.k", 2, table)
        v = p.linear(x, WeightSpec(f"{i}.v", (64, 64)))
        a = p.attention(q, k, v, heads=4, group=group, scale=0.2)
        h = p.linear(a, WeightSpec(f"{i}.o", (64, 128)), add=h)
    return p.logits(h, WeightSpec("head", (300, 64)))


def test_tables_norms_of_heads_and_scales_equal_the_reference() -> None:
    model = random_model(gemma_like(), POOL, type=GGMLType.F32)
    want = reference_logits(model.program, model.exact, TOKENS)
    check_near(all_logits(make_runner(model, POOL, kv_dtype="f32"), TOKENS), want)
    # and each of them shows in what comes out
    for plain in (
        gemma_like(scale=4.0),
        gemma_like(norms=False),
        gemma_like(tables=1),
        gemma_like(amplitude=1.0),
    ):
        changed = reference_logits(plain, model.exact, TOKENS)
        assert np.abs(changed - want).max() > 1e-2 * np.abs(want).max()


@pytest.mark.parametrize("type", [GGMLType.Q4_1, GGMLType.BF16, GGMLType.F32])
@pytest.mark.parametrize("norms", [True, False])
def test_fused_equals_unfused_bit_for_bit(type: GGMLType, norms: bool) -> None:
    model = random_model(gemma_like(norms=norms), POOL, type=type)
    fused = make_runner(model, POOL, fuse=True)
    assert fused.op_names.count("QKV") == 2
    got = all_logits(fused, TOKENS)
    assert np.isfinite(got).all()
    assert np.array_equal(got, all_logits(make_runner(model, POOL, fuse=False), TOKENS))


def test_chunks_have_the_bits_of_the_whole() -> None:
    model = random_model(gemma_like(), POOL, type=GGMLType.Q4_1)
    runner = make_runner(model, POOL)
    assert np.array_equal(all_logits(runner, TOKENS, [1, 2, 40]), all_logits(runner, TOKENS))


def test_one_head_norms_the_whole_row_as_ever() -> None:
    """A norm of one head and one of the whole row are the same record."""
    model = random_model(gemma_like(norms=False), POOL, type=GGMLType.F32)
    whole = all_logits(make_runner(model, POOL), TOKENS)
    ops = (replace(op, heads=1) if isinstance(op, Norm) else op for op in model.program.ops)
    again = replace(model, program=replace(model.program, ops=tuple(ops)))
    assert np.array_equal(all_logits(make_runner(again, POOL), TOKENS), whole)


def test_projections_turned_by_two_tables_do_not_fuse() -> None:
    program = gemma_like(norms=False)
    first = next(op for op in program.ops if isinstance(op, Rope))
    turned = replace(first, rope_table="local")
    mixed = replace(program, ops=tuple(turned if op is first else op for op in program.ops))
    kinds: dict[str, RowKind] = dict.fromkeys(program.weights(), "a32")
    names = [type(op).__name__ for op in fuse(mixed, kinds).ops]
    assert (names.count("QKV"), names.count("Rope")) == (1, 2)


def test_costs_of_tables_norms_of_heads_and_scales() -> None:
    program = gemma_like()
    weights, bf16 = uniform_weights(program, 32), KV_FORMATS["bf16"]
    costs = cost(program, Work(rows=3), weight_bytes=weights, formats=PageFormats.everywhere(bf16))
    by_name = list(zip([type(op).__name__ for op in program.ops], costs, strict=True))
    scale = next(c for name, c in by_name if name == "Scale")
    assert (scale.op_class, scale.flops, scale.activation_bytes) == ("embed", 3 * 64, 3 * 128 * 4)
    norms = [c for name, c in by_name if name == "Norm"]
    # the row, then 4 heads of q and 2 of k, whose weights are of one head
    assert [(c.flops, c.weight_bytes) for c in norms[:3]] == [
        (3 * 4 * 64, 64 * 4), (3 * 4 * 128, 32 * 4), (3 * 4 * 64, 32 * 4),
    ]  # fmt: skip
    ropes = [c.flops for name, c in by_name if name == "Rope"]
    assert ropes == [3 * 3 * 4 * 16, 3 * 3 * 2 * 16, 3 * 3 * 4 * 8, 3 * 3 * 2 * 8]
    classes = zip(program.ops, classify(program), strict=True)
    assert [c for op, c in classes if isinstance(op, Linear)] == ["qkv", "qkv", "qkv", "output"] * 2


def test_a_program_without_rotation_needs_no_table() -> None:
    p = ProgramBuilder()
    group = p.kv_group(KVSpec(2, 32, 32))
    h = p.embed(WeightSpec("table", (300, 64)))
    q, k, v = (p.linear(h, WeightSpec(name, (64, 64))) for name in "qkv")
    a = p.attention(q, k, v, heads=2, group=group, scale=0.2)
    program = p.logits(a, WeightSpec("head", (300, 64)))
    model = random_model(program, POOL, type=GGMLType.F32)
    got = all_logits(make_runner(model, POOL, kv_dtype="f32"), TOKENS)
    check_near(got, reference_logits(program, model.exact, TOKENS))
