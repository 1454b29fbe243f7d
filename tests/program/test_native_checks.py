"""What native.Program refuses. No caller may crash the process, whatever it passes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.program.parts import (
    CONTEXT,
    HIDDEN,
    VOCAB,
    Parts,
    batch_of,
    make_parts,
    output_of,
    run,
)


def put(op: str, field: str, value: float | list[int]) -> Callable[[Parts], None]:
    return lambda parts: parts.records[field].__setitem__(parts.ops.index(op), value)


def kind_of(op: str, field: str, kind: int) -> Callable[[Parts], None]:
    """Of the rows in that buffer of an op; -1 is float rows."""
    return lambda parts: parts.buffers["kind"].__setitem__(parts.buffer_of(op, field), kind)


def take(ops: slice | list[int]) -> Callable[[Parts], None]:
    return lambda parts: vars(parts).update(records=parts.records[ops])


def widen_rotation(parts: Parts) -> None:
    parts.cos = parts.sin = np.zeros((CONTEXT, 32), np.float32)


def one_layer(parts: Parts) -> None:
    """Of both layers' ops."""
    parts.records["layer"][parts.records["layer"] >= 0] = 0


def set_part(name: str, value: object) -> Callable[[Parts], None]:
    return lambda parts: setattr(parts, name, value)


def set_width(width: int) -> Callable[[Parts], None]:
    return lambda parts: parts.buffers["width"].__setitem__(0, width)


TWICE = [*range(16), -1]
REFUSED: dict[str, tuple[bool, Callable[[Parts], None], str]] = {
    "no embedding": (True, take(slice(1, None)), "first op's code: expected 0"),
    "two heads": (True, take(TWICE), "codes: expected one Embed of tokens, the first op, and"),
    "none for a matrix": (True, set_part("matrices", [None]), "matrices: expected PackedWeight"),
    "none for a layout": (True, set_part("layout", None), "groups: expected KVLayout, got None"),
    "window": (True, set_part("window", -1), "groups window, at least: expected 0, got -1"),
    "rows": (True, set_part("max_rows", 0), "max_rows - 1: expected 0 to 16777215, got -1"),
    "many rows": (True, set_part("max_rows", 2**31 - 1), "max_rows - 1: expected 0 to 16777215"),
    "width": (True, set_width(-(2**31) + 1), "buffers width - 1: expected 0 to 16777215"),
    "packed embedding": (True, kind_of("Embed", "out", 0), ".out: expected a buffer of float rows"),
    "float rows": (True, kind_of("QKV", "x", -1), ".out: expected a buffer of packed rows"),
    "unused buffer": (True, put("Head", "out", 99), "op 15.out: expected 0 to"),
    "table": (True, put("QKV", "rope_table", 1), "rope_table: expected 0 to 0, got 1"),
    "negative table": (True, put("QKV", "rope_table", -2), "rope_table: expected 0 to 0, got -2"),
    "no table": (False, put("Rope", "rope_table", -1), "rope_table: expected 0 to 0, got -1"),
    "sines": (True, set_part("sin", np.zeros((99, 16), np.float32)), "sin positions: expected 256"),
    "pairs": (True, set_part("sin", np.zeros((256, 9), np.float32)), "sin pairs: expected 16, got"),
    "rotary_dim": (True, widen_rotation, "rotary_dim: expected 0 to 32, got 64"),
    "code": (True, put("Matmul", "code", 99), "code, at most: expected 22, got 99"),
    "weight": (False, put("Norm", "vector", [99] * 5), ".vector: expected 0 to 10, got 99"),
    "other weight": (False, put("Norm", "vector", [1] * 5), "vector size: expected 96, got 128"),
    "other bias": (True, put("NormQuantize", "vector", [0, 1, 0, 0, 0]), "size: expected 96, got"),
    "kind of norm": (False, put("Norm", "norm_kind", -1), "norm_kind: expected 0 to 1, got -1"),
    "fused kind": (True, put("NormQuantize", "norm_kind", 2), "norm_kind: expected 0 to 1, got 2"),
    "head's kind": (True, put("Head", "norm_kind", 2), "norm_kind: expected 0 to 1, got 2"),
    "other width": (False, put("GatedActivation", "y", 0), ".y width: expected 160, got 96"),
    "no heads": (False, put("Norm", "heads", 0), ".heads: expected 1 to 96, got 0"),
    "negative heads": (False, put("Rope", "heads", -4), ".heads: expected 1 to 128, got -4"),
    "norm of heads": (False, put("Norm", "heads", 2), "heads x head_dim: expected 96, got 192"),
    "activation": (False, put("GatedActivation", "activation", 5), "activation: expected 0 to 4"),
    "fused activation": (True, put("GateUp", "activation", -1), "activation: expected 0 to 4, got"),
    "style": (True, put("QKV", "rope_style", 2), "rope_style: expected 0 to 1, got 2"),
    "scale": (True, put("AttendQuantize", "scale", 0.0), "scale: expected a positive finite"),
    "softcap": (True, put("AttendQuantize", "softcap", -1.0), "softcap: expected 0 (none) or a"),
    "not stored": (True, put("AttendQuantize", "layer", 1), "one that an op before stores"),
    "stored twice": (True, one_layer, "op 9.layer: expected one that no op before stores"),
    "read before": (False, put("Attend", "layer", 1), "expected one that an op before stores"),
    "stored again": (False, one_layer, ".layer: expected one that no op before stores"),
    "heads": (False, put("Rope", "heads", 64), "heads x head_dim: expected 128, got 2048"),
    "many heads": (False, put("Rope", "heads", 10**6), ".heads: expected 1 to 128, got 1000000"),
    "head_dim": (False, put("Rope", "head_dim", 2**28), "heads x head_dim: expected 128, got"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_program_that_would_leave_its_arrays_is_refused(name: str) -> None:
    fused, change, message = REFUSED[name]
    parts = make_parts(fused=fused)
    change(parts)
    with pytest.raises(ValueError, match=re.escape(message)):
        parts.build()


def test_vectors_that_an_op_does_not_read_are_not_looked_up() -> None:
    parts = make_parts(fused=False)
    want = run(parts.build(), [1, 2])
    parts.records["vector"][parts.ops.index("GatedActivation")] = 2**30
    assert np.array_equal(run(parts.build(), [1, 2]), want)


READ_ONLY = np.zeros(2, np.int32)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": [1, 2]}, "tokens: expected a C-contiguous array: a bytes-like object is"),
        ({"tokens": None}, "tokens: expected a C-contiguous array: a bytes-like object is"),
        ({"tokens": np.zeros(4, np.int32)[::2]}, "tokens: expected a C-contiguous array: ndarray"),
        ({"tokens": np.zeros(2, np.int64)}, 'tokens: expected int32 of ndim 1, got'),
        ({"tokens": np.zeros(2, ">i4")}, 'int32 of ndim 1, got ">i" of 4 bytes'),
        ({"positions": np.zeros((1, 2), np.int32)}, 'of ndim 1, got "i" of 4 bytes, ndim 2'),
        ({"positions": np.zeros((), np.int32)}, 'of ndim 1, got "i" of 4 bytes, ndim 0'),
        ({"block_tables": np.zeros((1, 4), np.int32)}, "block_tables: expected int32 of ndim 3"),
        ({"wants": np.zeros(2, np.float32)}, 'wants: expected int32 of ndim 1, got'),
        ({"uniforms": np.zeros(2, np.float32)}, "uniforms: expected float64 of ndim 1"),
        ({"masks": np.zeros((2, 35), np.int32)}, "masks: expected uint32 of ndim 2"),
        (
            {"edits": np.zeros((1, 3), np.int32), "edit_starts": np.array([0, 0, 1], np.int32)},
            'edits: expected octavo.batch.EDIT of ndim 1, got "i" of 4 bytes, ndim 2',
        ),
        ({"top_k": 1.5}, "top_k: expected an int32"),
        ({"top_k": 2**31}, "top_k: expected an int32"),
    ],
)  # fmt: skip
def test_arrays_of_another_type_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    program, batch = make_parts().build(), batch_of([1, 2])
    with pytest.raises(TypeError, match=re.escape(message)):
        program.run(replace(batch, **change), output_of(batch))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"argmax": READ_ONLY}, TypeError, "argmax: expected a C-contiguous writable array"),
        ({"argmax": np.zeros(3, np.int32)}, ValueError, "argmax: expected 2, got 3"),
        ({"log_sum_exp": np.zeros(2)}, TypeError, "log_sum_exp: expected float32 of ndim 1"),
        ({"log_sum_exp": np.zeros(1, np.float32)}, ValueError, "log_sum_exp: expected 2, got 1"),
        ({"top_ids": np.zeros((3, 0), np.int32)}, ValueError, "top_ids outputs: expected 2"),
        ({"top_ids": np.zeros((2, 1), np.int32)}, ValueError, "top_ids columns: expected 0"),
        ({"top_logits": np.zeros((2, 1), np.float32)}, ValueError, "top_logits columns: expect"),
        ({"logits": np.zeros((1, VOCAB), np.float32)}, ValueError, "logits rows: expected 2"),
        ({"logits": np.zeros((2, 9), np.float32)}, ValueError, "logits width: expected 1100"),
        ({"hidden": np.zeros((1, HIDDEN), np.float32)}, ValueError, "hidden rows: expected 0"),
        ({"hidden": np.zeros((0, 9), np.float32)}, ValueError, "hidden width: expected 96"),
        ({"drawn": np.zeros(1, np.int32)}, ValueError, "drawn: expected 0, got 1"),
        ({"drawn_logits": np.zeros(1, np.float32)}, ValueError, "drawn_logits: expected 0, got 1"),
        ({"op_ns": np.zeros(3, np.uint64)}, ValueError, "op_ns: expected 16, got 3"),
        ({"op_ns": np.zeros(16, np.int64)}, TypeError, "op_ns: expected uint64 of ndim 1"),
    ],
)  # fmt: skip
def test_results_that_do_not_fit_are_refused_by_name(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    program, batch = make_parts().build(), batch_of([1, 2])
    with pytest.raises(error, match=re.escape(message)):
        program.run(batch, replace(output_of(batch), **change))


def test_what_has_no_such_attribute_is_refused() -> None:
    program, batch = make_parts().build(), batch_of([1, 2])
    with pytest.raises(AttributeError, match="tokens"):
        program.run(output_of(batch), output_of(batch))  # type: ignore[arg-type]


def test_layers_of_a_group_have_the_same_heads() -> None:
    parts = make_parts(fused=False)
    second = max(i for i, op in enumerate(parts.ops) if op == "Attend")
    narrow = np.array([(64, -1), (64, -1)], parts.buffers.dtype)
    parts.buffers = np.concatenate([parts.buffers, narrow])
    extra = parts.records[second : second + 1].copy()
    extra["heads"], extra["x"], extra["out"] = 2, len(parts.buffers) - 2, len(parts.buffers) - 1
    parts.records = np.insert(parts.records, second + 1, extra)
    with pytest.raises(ValueError, match="as in its group's other layers: expected 4, got 2"):
        parts.build()
