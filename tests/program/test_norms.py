"""Norms of each kind in whole programs: as the reference says, and fused as unfused."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from octavo.kernels import KV_FORMATS, native
from octavo.program.builder import ProgramBuilder
from octavo.program.cost import Work, cost, uniform_weights
from octavo.program.kv_bytes import PageFormats
from octavo.program.ops import KVSpec, Value, WeightSpec
from octavo.program.program import Program
from octavo.weights.ggml_type import GGMLType
from tests.program.one_sequence import check_near, reference_logits, tokens_of
from tests.tiny import all_logits, make_runner, random_model

POOL = native.ThreadPool(2)
TOKENS = tokens_of(300)


@dataclass(frozen=True)
class Norms:
    layer: bool = True
    weight: bool = True
    bias: bool = True
    of_heads: bool = False  # q and k too, before they turn


SHAPES = {
    "layer": Norms(),
    "layer without bias": Norms(bias=False),
    "layer of bias alone": Norms(weight=False),
    "layer, bare": Norms(weight=False, bias=False),
    "rms, bare": Norms(layer=False, weight=False, bias=False),
    "rms of heads, bare": Norms(layer=False, weight=False, bias=False, of_heads=True),
}


def normed(shape: Norms) -> Program:
    p = ProgramBuilder(rope_frequencies=(1.0, 0.1, 0.01, 0.001))
    group = p.kv_group(KVSpec(2, 32, 32))

    def norm(x: Value, name: str, heads: int = 1) -> Value:
        size = (x.width // heads,)
        weight = WeightSpec(f"{name}.weight", size) if shape.weight else None
        bias = WeightSpec(f"{name}.bias", size) if shape.bias else None
        if shape.layer:
            return p.layer_norm(x, weight, bias, 1e-5)
        return p.rms_norm(x, weight, 1e-5, heads=heads)

    def turned(x: Value, name: str, heads: int) -> Value:
        y = p.linear(x, WeightSpec(name, (heads * 32, 64)))
        return p.rope(norm(y, name, heads) if shape.of_heads else y, heads=heads, style="half")

    h = p.embed(WeightSpec("table", (300, 64)))
    for i in range(2):
        x = norm(h, f"{i}.norm")
        q, k = turned(x, f"{i}.q", 4), turned(x, f"{i}.k", 2)
        v = p.linear(x, WeightSpec(f"{i}.v", (64, 64)))
        a = p.attention(q, k, v, heads=4, group=group, scale=0.2)
        h = p.linear(a, WeightSpec(f"{i}.o", (64, 128)), add=h)
    return p.logits(norm(h, "norm"), WeightSpec("head", (300, 64)))


@pytest.mark.parametrize("name", SHAPES)
def test_norms_equal_the_reference(name: str) -> None:
    model = random_model(normed(SHAPES[name]), POOL, type=GGMLType.F32)
    got = all_logits(make_runner(model, POOL, kv_dtype="f32"), TOKENS)
    check_near(got, reference_logits(model.program, model.exact, TOKENS))


@pytest.mark.parametrize("type", [GGMLType.Q4_1, GGMLType.F32])
@pytest.mark.parametrize("name", SHAPES)
def test_fused_equals_unfused_bit_for_bit(name: str, type: GGMLType) -> None:
    shape = SHAPES[name]
    model = random_model(normed(shape), POOL, type=type)
    fused = make_runner(model, POOL, fuse=True)
    assert fused.op_names.count("NormQuantize") == 2
    assert fused.op_names.count("Norm") == (4 if shape.of_heads else 0)
    got = all_logits(fused, TOKENS)
    assert np.isfinite(got).all()
    assert np.array_equal(got, all_logits(make_runner(model, POOL, fuse=False), TOKENS))
    assert np.array_equal(got, all_logits(fused, TOKENS, [1, 2, 40]))


def test_the_mean_the_weight_and_the_bias_all_show() -> None:
    model = random_model(normed(Norms()), POOL, type=GGMLType.F32)
    want = reference_logits(model.program, model.exact, TOKENS)
    for change in ({"layer": False, "bias": False}, {"bias": False}, {"weight": False}):
        other = reference_logits(normed(replace(Norms(), **change)), model.exact, TOKENS)
        assert np.abs(other - want).max() > 1e-2 * np.abs(want).max()


def test_a_norm_costs_what_it_does() -> None:
    bf16 = KV_FORMATS["bf16"]

    def first(shape: Norms) -> tuple[float, float]:
        program = normed(shape)
        weights = uniform_weights(program, 32)
        one = cost(program, Work(3), weight_bytes=weights, formats=PageFormats.everywhere(bf16))[1]
        assert one.op_class == "norm"
        return one.flops, one.weight_bytes

    assert first(SHAPES["rms, bare"]) == (3 * 3 * 64, 0)
    assert first(SHAPES["layer, bare"]) == (3 * 5 * 64, 0)
    assert first(SHAPES["layer"]) == (3 * 7 * 64, 2 * 64 * 4)
