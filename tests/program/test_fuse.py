"""What fuses and what does not; that values share buffers only when they may."""

from __future__ import annotations

from dataclasses import replace

import pytest

from octavo.model import llama
from octavo.program.builder import ProgramBuilder
from octavo.program.encode import encode
from octavo.program.fuse import RowKind, fuse, lower
from octavo.program.ops import KVSpec, RopeStyle, Value, WeightSpec
from octavo.program.program import Program, inputs, output
from tests.tiny import TINY


def kinds(program: Program, **other: RowKind) -> dict[str, RowKind]:
    """All matrices read int8 rows, but for those whose name a keyword is a part of."""
    found: dict[str, RowKind] = dict.fromkeys(program.weights(), "a32")
    for part, kind in other.items():
        found |= {name: kind for name in found if part in name}
    return found


def names(program: Program) -> list[str]:
    return [type(op).__name__ for op in program.ops]


def fused(program: Program, **other: RowKind) -> list[str]:
    return names(fuse(program, kinds(program, **other)))


LAYER = ["NormQuantize", "QKV", "AttendQuantize", "Matmul", "NormQuantize", "GateUp", "Matmul"]


def test_a_llama_layer_becomes_seven_ops() -> None:
    assert fused(llama.build(TINY)) == ["Embed", *LAYER, *LAYER, "Head"]


def test_lowering_packs_each_value_once() -> None:
    program = llama.build(replace(TINY, num_layers=1))
    assert names(lower(program, kinds(program))) == [
        "Embed", "Norm", "Quantize", "Matmul", "Rope", "Matmul", "Rope", "Matmul", "StoreKV",
        "Attend", "Quantize", "Matmul", "Norm", "Quantize", "Matmul", "Matmul",
        "GatedActivation", "Quantize", "Matmul", "Norm", "Head",
    ]  # fmt: skip


def test_a_value_of_another_kind_keeps_its_own_quantize() -> None:
    """V in bf16 beside q and k in int8: the norm is written out and packed twice."""
    found = fused(llama.build(replace(TINY, num_layers=1)), attn_v="abf16")
    assert found[1:9] == [
        "Norm", "Quantize", "Matmul", "Rope", "Matmul", "Rope", "Quantize", "Matmul",
    ]  # fmt: skip
    assert "QKV" not in found
    assert "GateUp" in found


def test_heads_that_make_no_whole_group_are_packed_apart() -> None:
    heads = replace(TINY, num_layers=1, heads=3, kv_heads=3, head_dim=80, rotary_dim=80)
    assert fused(llama.build(heads))[1:5] == ["NormQuantize", "QKV", "Attend", "Quantize"]


def attention_of(change: str) -> Program:
    """Projections, attention and output projection, all of which fuse but for the change."""
    p = ProgramBuilder(rope_frequencies=(1.0,) * 8)
    turned = change not in ("none is turned", "normed heads, none turned")
    k_dim = 40 if change == "k of no whole panels" else 32
    v_dim = 40 if change == "v of no whole panels" else 32
    group = p.kv_group(KVSpec(2, k_dim, v_dim))
    h = p.embed(WeightSpec("table", (64, 64)))
    x = p.rms_norm(h, WeightSpec("norm", (64,)), 1e-5)

    def linear(name: str, rows: int) -> Value:
        add = h if change == f"{name} is added to" else None
        return p.linear(x, WeightSpec(name, (rows, 64)), add=add)

    q, k, v = linear("q", 2 * k_dim), linear("k", 2 * k_dim), linear("v", 2 * v_dim)
    if change == "v is k before its rotation":
        v = k
    if change == "normed heads, none turned":
        k = p.rms_norm(k, WeightSpec("k_norm", (k_dim,)), 1e-5, heads=2)
    heads, rotated = 1 if change == "q is turned as one head" else 2, q
    if turned and change != "k alone is turned":
        style: RopeStyle = "interleaved" if change == "two styles" else "half"
        rotated = p.rope(rotated, heads=heads, style=style)
    if turned and change != "q alone is turned":
        k = p.rope(k, heads=2, style="half")
    a = p.attention(rotated, k, v, heads=2, group=group, scale=1.0)
    if change == "q is read again":
        a = p.gated(a, q, "silu")
    return p.logits(p.linear(a, WeightSpec("o", (64, a.width))), WeightSpec("head", (80, 64)))


@pytest.mark.parametrize("change", ["", "none is turned", "normed heads, none turned"])
def test_projections_fuse(change: str) -> None:
    want = ["Embed", "NormQuantize", "QKV", "AttendQuantize", "Matmul", "Head"]
    assert fused(attention_of(change)) == want


@pytest.mark.parametrize(
    "change",
    [
        "q is added to", "k is added to", "v is added to", "two styles", "q is read again",
        "v is k before its rotation", "k of no whole panels", "v of no whole panels",
        "q is turned as one head",
    ],
)  # fmt: skip
def test_projections_that_do_more_or_whose_values_others_read_do_not_fuse(change: str) -> None:
    found = fused(attention_of(change))
    assert (found.count("QKV"), found.count("Rope")) == (0, 2)


@pytest.mark.parametrize("change", ["q alone is turned", "k alone is turned"])
def test_projections_of_which_one_is_turned_do_not_fuse(change: str) -> None:
    found = fused(attention_of(change))
    assert (found.count("QKV"), found.count("Rope")) == (0, 1)


def mlp_of(change: str) -> Program:
    """Norm, gate, up and down, all of which fuse but for the change."""
    p = ProgramBuilder(rope_frequencies=(1.0,))
    h = p.embed(WeightSpec("table", (64, 64)))
    x = p.rms_norm(h, WeightSpec("norm", (64,)), 1e-5)
    width = 80 if change == "no whole groups" else 64

    def linear(name: str, x: Value) -> Value:
        bias = WeightSpec(f"{name}.bias", (width,)) if change == f"{name} has a bias" else None
        add = h if change == f"{name} is added to" else None
        return p.linear(x, WeightSpec(name, (width, 64)), bias=bias, add=add)

    gate, up = linear("gate", x), linear("up", h if change == "up reads another value" else x)
    g = p.gated(gate, gate if change == "up is gate" else up, "silu")
    if change == "up is read again":
        g = p.gated(g, up, "silu")
    down = WeightSpec("down", (64, width))
    return p.logits(p.linear(g, down, add=h), WeightSpec("head", (80, 64)))


def test_gate_and_up_fuse() -> None:
    assert fused(mlp_of("")) == ["Embed", "NormQuantize", "GateUp", "Matmul", "Head"]


@pytest.mark.parametrize(
    "change",
    [
        "gate has a bias", "up has a bias", "gate is added to", "up is added to", "up is gate",
        "up reads another value", "up is read again", "no whole groups",
    ],
)  # fmt: skip
def test_gate_and_up_that_do_more_or_that_others_read_do_not_fuse(change: str) -> None:
    found = fused(mlp_of(change))
    assert "GateUp" not in found
    assert "GatedActivation" in found


def test_a_norm_that_is_also_a_residual_is_written_out() -> None:
    """Where the norm comes after the sum, packed rows alone cannot be added."""
    p = ProgramBuilder(rope_frequencies=(1.0,))
    x = p.rms_norm(p.embed(WeightSpec("table", (64, 64))), WeightSpec("norm", (64,)), 1e-5)
    y = p.linear(x, WeightSpec("w", (64, 64)), add=x)
    program = p.logits(y, WeightSpec("head", (80, 64)))
    assert fused(program) == ["Embed", "Norm", "Quantize", "Matmul", "Head"]


def test_no_value_is_overwritten_before_its_last_reader() -> None:
    """Replays the buffers op by op: each input still holds the value that the op means."""
    program = llama.build(TINY)
    for rewritten in (lower(program, kinds(program)), fuse(program, kinds(program))):
        encoded = encode(rewritten, kinds(program))
        holds: dict[int, int] = {}
        for op, record in zip(rewritten.ops, encoded.records, strict=True):
            buffers = [int(record[f]) for f in ("x", "y", "add") if record[f] >= 0]
            assert [holds[b] for b in buffers] == [v.id for v in inputs(op)]
            if (out := output(op)) is not None:
                holds[int(record["out"])] = out.id


def test_buffers_do_not_grow_with_the_layers() -> None:
    for layers in (1, 2, 30):
        program = llama.build(replace(TINY, num_layers=layers))
        assert len(encode(fuse(program, kinds(program)), kinds(program)).buffers) <= 5
