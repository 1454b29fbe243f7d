"""Linears whose product is scaled before what is added: as the reference says, fused as unfused."""

from __future__ import annotations

import re

import numpy as np
import pytest

from octavo.kernels import KV_FORMATS, native
from octavo.program.builder import ProgramBuilder
from octavo.program.cost import Work, cost, uniform_weights
from octavo.program.kv_bytes import PageFormats
from octavo.program.ops import KVSpec, Linear, Value, WeightSpec
from octavo.program.program import Program
from octavo.weights.ggml_type import GGMLType
from tests.program.one_sequence import check_near, reference_logits, tokens_of
from tests.program.parts import make_parts
from tests.tiny import all_logits, make_runner, random_model

POOL = native.ThreadPool(2)
TOKENS = tokens_of(300)


def scaled(*, out: float = 0.22, projections: float = 1.0, gate: float = 1.0) -> Program:
    """A layer whose two sums with the residual are scaled, as are q, k and v, and the gate."""
    p = ProgramBuilder(rope_frequencies=(1.0, 0.1, 0.01, 0.001))
    group = p.kv_group(KVSpec(2, 32, 32))
    h = p.embed(WeightSpec("table", (300, 64)))

    def linear(x: Value, name: str, rows: int, scale: float) -> Value:
        return p.linear(x, WeightSpec(name, (rows, x.width)), scale=scale)

    def add_to(h: Value, x: Value, name: str) -> Value:
        weight, bias = WeightSpec(name, (64, x.width)), WeightSpec(f"{name}.bias", (64,))
        return p.linear(x, weight, bias=bias, scale=out, add=h)

    x = p.rms_norm(h, WeightSpec("norm", (64,)), 1e-5)
    q, k, v = (linear(x, name, 64, projections) for name in "qkv")
    q, k = (p.rope(one, heads=2, style="half") for one in (q, k))
    h = add_to(h, p.attention(q, k, v, heads=2, group=group, scale=0.2), "o")
    x = p.rms_norm(h, WeightSpec("ffn_norm", (64,)), 1e-5)
    g = p.gated(linear(x, "gate", 96, gate), linear(x, "up", 96, 1.0), "silu")
    return p.logits(add_to(h, g, "down"), WeightSpec("head", (300, 64)))


SHAPES = {
    "out": (scaled(), 1, 1),
    "projections": (scaled(projections=0.5), 0, 1),
    "gate": (scaled(gate=-2.0), 1, 0),
    "one": (scaled(out=1.0), 1, 1),
}


@pytest.mark.parametrize("name", SHAPES)
def test_scaled_linears_equal_the_reference(name: str) -> None:
    program, _, _ = SHAPES[name]
    model = random_model(program, POOL, type=GGMLType.F32)
    got = all_logits(make_runner(model, POOL, kv_dtype="f32"), TOKENS)
    check_near(got, reference_logits(program, model.exact, TOKENS))


@pytest.mark.parametrize("type", [GGMLType.Q4_1, GGMLType.BF16, GGMLType.F32])
@pytest.mark.parametrize("name", SHAPES)
def test_fused_equals_unfused_bit_for_bit(name: str, type: GGMLType) -> None:
    program, qkvs, gate_ups = SHAPES[name]
    model = random_model(program, POOL, type=type)
    fused = make_runner(model, POOL, fuse=True)
    assert (fused.op_names.count("QKV"), fused.op_names.count("GateUp")) == (qkvs, gate_ups)
    got = all_logits(fused, TOKENS)
    assert np.isfinite(got).all()
    assert np.array_equal(got, all_logits(make_runner(model, POOL, fuse=False), TOKENS))


def test_a_scale_shows_and_costs_a_product() -> None:
    model = random_model(scaled(), POOL, type=GGMLType.F32)
    want = reference_logits(model.program, model.exact, TOKENS)
    plain = reference_logits(scaled(out=1.0), model.exact, TOKENS)
    assert np.abs(plain - want).max() > 1e-2 * np.abs(want).max()

    def flops(program: Program) -> list[float]:
        weights, bf16 = uniform_weights(program, 32), KV_FORMATS["bf16"]
        costs = cost(
            program, Work(rows=3), weight_bytes=weights, formats=PageFormats.everywhere(bf16)
        )
        ops = zip(program.ops, costs, strict=True)
        return [c.flops for op, c in ops if isinstance(op, Linear) and op.add is not None]

    pairs = zip(flops(scaled()), flops(scaled(out=1.0)), strict=True)
    assert [more - less for more, less in pairs] == [3 * 64] * 2


def test_a_scale_that_is_no_number_is_refused() -> None:
    parts = make_parts()
    parts.records["scale"][parts.ops.index("Matmul")] = np.nan
    with pytest.raises(ValueError, match=re.escape("scale: expected a finite number")):
        parts.build()
