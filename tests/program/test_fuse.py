"""What fuses and what does not; that values share buffers only when they may."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from octavo.model import llama
from octavo.program.encode import encode
from octavo.program.fuse import RowKind, fuse, inputs, lower, output
from octavo.program.ops import Program
from tests.tiny import TINY


def kinds(program: Program, **other: RowKind) -> dict[str, RowKind]:
    """All matrices read int8 rows, but for those whose name ends as a keyword says."""
    found: dict[str, RowKind] = dict.fromkeys(program.weights(), "a32")
    for name in found:
        for ending, kind in other.items():
            if ending in name:
                found[name] = kind
    return found


def names(program: Program) -> list[str]:
    return [type(op).__name__ for op in program.ops]


LAYER = ["NormQuantize", "QKV", "AttendQuantize", "Matmul", "NormQuantize", "GateUp", "Matmul"]


def test_a_llama_layer_becomes_seven_ops() -> None:
    program = llama.build(TINY)
    assert names(fuse(program, kinds(program))) == ["Embed", *LAYER, *LAYER, "Head"]


def test_lowering_packs_each_value_once() -> None:
    program = llama.build(replace(TINY, num_layers=1))
    assert names(lower(program, kinds(program))) == [
        "Embed", "RmsNorm", "Quantize", "Matmul", "Rope", "Matmul", "Rope", "Matmul", "StoreKV",
        "Attend", "Quantize", "Matmul", "RmsNorm", "Quantize", "Matmul", "Matmul", "SwiGLU",
        "Quantize", "Matmul", "RmsNorm", "Head",
    ]  # fmt: skip


def test_a_value_of_another_kind_keeps_its_own_quantize() -> None:
    """V in bf16 beside q and k in int8: the norm is written out and packed twice."""
    program = llama.build(replace(TINY, num_layers=1))
    fused = names(fuse(program, kinds(program, attn_v="abf16")))
    assert fused[1:9] == [
        "RmsNorm",
        "Quantize",
        "Matmul",
        "Rope",
        "Matmul",
        "Rope",
        "Quantize",
        "Matmul",
    ]
    assert "QKV" not in fused
    assert "GateUp" in fused


def test_heads_that_make_no_whole_group_are_packed_apart() -> None:
    program = llama.build(
        replace(TINY, num_layers=1, heads=3, kv_heads=3, head_dim=80, rotary_dim=80)
    )
    fused = names(fuse(program, kinds(program)))
    assert fused[1:5] == ["NormQuantize", "QKV", "Attend", "Quantize"]


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


def test_records_are_twenty_words() -> None:
    program = llama.build(TINY)
    records = encode(fuse(program, kinds(program)), kinds(program)).records
    assert records.view(np.int32).reshape(len(records), -1).shape[1] == 20
