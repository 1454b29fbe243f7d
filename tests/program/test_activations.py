"""Activations of each kind, gated and alone, in whole programs: as the reference says, fused as
unfused."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from octavo.kernels import KV_FORMATS, native
from octavo.program.builder import ProgramBuilder
from octavo.program.cost import Work, cost, uniform_weights
from octavo.program.kv_bytes import PageFormats
from octavo.program.ops import Activate, ActivationKind, GatedActivation, KVSpec, WeightSpec
from octavo.program.program import Program
from octavo.weights.ggml_type import GGMLType
from tests.program.one_sequence import check_near, reference_logits, tokens_of
from tests.tiny import all_logits, make_runner, random_model

POOL = native.ThreadPool(2)
TOKENS = tokens_of(300)
KINDS = get_args(ActivationKind)
every_kind = pytest.mark.parametrize("kind", KINDS)


def activated(kind: ActivationKind) -> Program:
    """Attention and two feed-forward layers, one of them gated."""
    p = ProgramBuilder()
    h = p.embed(WeightSpec("table", (300, 64)))
    h = p.attention(h, h, h, heads=2, group=p.kv_group(KVSpec(2, 32, 32)), scale=0.2)
    x = p.rms_norm(h, WeightSpec("norm", (64,)), 1e-5)
    up = p.linear(x, WeightSpec("0.up", (96, 64)), bias=WeightSpec("0.bias", (96,)))
    h = p.linear(p.activate(up, kind), WeightSpec("0.down", (64, 96)), add=h)
    x = p.rms_norm(h, WeightSpec("1.norm", (64,)), 1e-5)
    gate, up = (p.linear(x, WeightSpec(name, (96, 64))) for name in ("1.gate", "1.up"))
    h = p.linear(p.gated(gate, up, kind), WeightSpec("1.down", (64, 96)), add=h)
    return p.logits(h, WeightSpec("head", (300, 64)))


def test_the_core_knows_the_kinds() -> None:
    assert (*KINDS, "clamped_glu") == native.ACTIVATIONS  # of gates alone: test_experts


@every_kind
def test_activations_equal_the_reference(kind: ActivationKind) -> None:
    model = random_model(activated(kind), POOL, type=GGMLType.F32)
    want = reference_logits(model.program, model.exact, TOKENS)
    check_near(all_logits(make_runner(model, POOL, kv_dtype="f32"), TOKENS), want)
    for other in KINDS:
        changed = reference_logits(activated(other), model.exact, TOKENS)
        assert other == kind or np.abs(changed - want).max() > 1e-4 * np.abs(want).max()


@every_kind
@pytest.mark.parametrize("type", [GGMLType.Q4_1, GGMLType.BF16])
def test_fused_equals_unfused_bit_for_bit(type: GGMLType, kind: ActivationKind) -> None:
    model = random_model(activated(kind), POOL, type=type)
    fused = make_runner(model, POOL, fuse=True)
    assert (fused.op_names.count("Activate"), fused.op_names.count("GateUp")) == (1, 1)
    got = all_logits(fused, TOKENS)
    assert np.isfinite(got).all()
    assert np.array_equal(got, all_logits(make_runner(model, POOL, fuse=False), TOKENS))
    assert np.array_equal(got, all_logits(fused, TOKENS, [1, 2, 40]))


@every_kind
def test_a_gated_activation_costs_a_product_more(kind: ActivationKind) -> None:
    program, bf16 = activated(kind), KV_FORMATS["bf16"]
    weights = uniform_weights(program, 32)
    costs = cost(program, Work(rows=3), weight_bytes=weights, formats=PageFormats.everywhere(bf16))
    of = {type(op): c for op, c in zip(program.ops, costs, strict=True)}
    assert of[GatedActivation].flops == of[Activate].flops + 3 * 96
    assert of[Activate].op_class == of[GatedActivation].op_class == "mlp"
    assert of[Activate].activation_bytes == 3 * 2 * 96 * 4
