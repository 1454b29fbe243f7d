"""Weights that are parts of tensors, against numpy on the tensor's values: any runs of rows, any
type, either way round, with and without the zeros after each head."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from octavo.weights.dequantize import dequantize
from octavo.weights.ggml_type import GGMLType
from octavo.weights.gguf_header import TensorInfo
from octavo.weights.weight_view import WHOLE, Padding, Part, WeightView, stored_bytes, view_of
from tests.kernels.gguf_blocks import random_blocks

Array = NDArray[np.generic]
FLOATS = (GGMLType.F32, GGMLType.F16, GGMLType.BF16)


def drawn(
    type: GGMLType, shape: tuple[int, ...], seed: int = 0
) -> tuple[TensorInfo, NDArray[np.uint8]]:
    """A tensor's entry and its bytes."""
    rows, cols = shape if len(shape) == 2 else (1, shape[0])
    data = random_blocks(type, rows, cols, np.random.default_rng(seed))
    data.flags.writeable = False  # as a mapped file's
    return TensorInfo("t", shape, type, 0, data.size), data


def model(view: WeightView, values: Array) -> Array:
    """What `view` says, on the tensor's values: one row, one column after the other."""
    if view.transposed:
        values = values.T
    rows = [values[i] for run in view.rows for i in run] if view.rows else list(values)
    rows = with_zeros(rows, view.pad_rows, np.zeros_like(values[0]))
    if values.ndim == 1:
        return np.array(rows)
    columns = [np.array([row[j] for row in rows]) for j in range(values.shape[1])]
    return np.stack(with_zeros(columns, view.pad_cols, np.zeros_like(columns[0])), axis=1)


def with_zeros(items: list[Array], pad: Padding | None, zero: Array) -> list[Array]:
    if pad is None:
        return items
    out = []
    for i, item in enumerate(items):
        out.append(item)
        if (i + 1) % pad.size == 0:
            out += [zero] * (pad.padded - pad.size)
    return out


@st.composite
def views(draw: st.DrawFn, heads: int, size: int) -> WeightView:
    """Of a weight whose rows are some of `heads * size` rows."""
    total = heads * size
    chosen = draw(st.lists(st.integers(0, heads - 1), max_size=2 * heads))  # also twice, unordered
    pad = st.none() | st.builds(Padding, st.just(size), st.integers(size, size + 9))
    return WeightView(
        rows=tuple(range(h * size, (h + 1) * size) for h in chosen),
        of=total,
        transposed=draw(st.booleans()),
        pad_rows=draw(pad),
    )


@given(st.data(), st.sampled_from(GGMLType), st.integers(1, 4), st.integers(1, 5))
def test_a_view_is_what_it_says_of_the_values(
    data: st.DataObject, type: GGMLType, heads: int, size: int
) -> None:
    view, cols = data.draw(views(heads, size)), type.block_values * data.draw(st.integers(1, 2))
    if data.draw(st.booleans()):
        part = data.draw(st.sampled_from([d for d in range(1, cols + 1) if cols % d == 0]))
        view = WeightView(
            "", view.rows, view.of, view.transposed, view.pad_rows, Padding(part, part + 3)
        )
    rows = heads * size
    if view.transposed and type.block_values > 1:  # in whole blocks the other way
        view, rows, cols = WeightView(view.tensor, (), 0, transposed=True), cols, rows
        shape: tuple[int, ...] = (cols, rows)
    else:
        shape = (cols, rows) if view.transposed else (rows, cols)
    info, raw = drawn(type, shape)
    want = model(view, dequantize(type, raw, shape))
    assert view.tensor_shape(want.shape) == shape
    found, got = view.read(info, raw)
    assert found is (GGMLType.F32 if view.needs_values(info) else type)
    assert got.size == stored_bytes(found, want.shape)
    assert np.array_equal(dequantize(found, got, want.shape), want)


@given(st.data(), st.sampled_from(FLOATS), st.integers(1, 4), st.integers(1, 5))
def test_a_vector_has_the_rows_and_no_columns(
    data: st.DataObject, type: GGMLType, heads: int, size: int
) -> None:
    part = data.draw(views(heads, size))
    whole = WeightView("", part.rows, part.of, True, part.pad_rows, Padding(2, 3))
    view = view_of({"attn_q": whole}, "blk.3.attn_q.bias")
    info, raw = drawn(type, (heads * size,))
    want = model(view, dequantize(type, raw, info.shape))
    found, got = view.read(info, raw)
    assert found is type
    assert np.array_equal(dequantize(found, got, want.shape), want)
    assert view.tensor == "blk.3.attn_q.bias"


@pytest.mark.parametrize("type", FLOATS)
def test_a_tensor_of_many_strips_is_turned_whole(type: GGMLType) -> None:
    info, raw = drawn(type, (150, 40))
    values = dequantize(type, raw, info.shape)
    for runs in ((), (range(30, 40), range(5, 7))):
        view = WeightView(rows=runs, of=40, transposed=True)
        _, got = view.read(info, raw)
        want = model(view, values)
        assert np.array_equal(dequantize(type, got, want.shape), want)


@pytest.mark.parametrize("type", [GGMLType.BF16, GGMLType.Q4_K])
def test_one_run_is_read_in_place(type: GGMLType) -> None:
    info, raw = drawn(type, (9, 512))
    for view in (WHOLE, WeightView(rows=(range(2, 5),), of=9)):
        _, got = view.read(info, raw)
        assert np.shares_memory(got, raw)
    _, got = WeightView(rows=(range(2, 3), range(1, 2)), of=9).read(info, raw)
    assert not np.shares_memory(got, raw)


def test_columns_of_whole_blocks_are_cut_as_values_only() -> None:
    pad = WeightView(pad_cols=Padding(20, 32))
    assert pad.needs_values(drawn(GGMLType.Q8_0, (2, 160))[0])
    assert not pad.needs_values(drawn(GGMLType.BF16, (2, 160))[0])
    assert not WeightView(pad_rows=Padding(2, 3)).needs_values(drawn(GGMLType.Q8_0, (2, 160))[0])
    assert WeightView(rows=(range(1, 33),), of=160).needs_values(drawn(GGMLType.Q8_0, (160,))[0])


def test_the_shape_that_a_tensor_must_have() -> None:
    assert WHOLE.tensor_shape((3, 5)) == (3, 5)
    part = WeightView("attn_qkv", (range(3),), of=9)
    assert part.tensor_shape((3, 5)) == (9, 5)
    assert part.tensor_shape((3,)) == (9,)
    assert WeightView("attn_qkv", (range(3),), of=9, transposed=True).tensor_shape((3, 5)) == (5, 9)
    assert WeightView(pad_rows=Padding(20, 32)).tensor_shape((64, 5)) == (40, 5)
    assert WeightView(pad_rows=Padding(20, 32)).tensor_shape((64,)) == (40,)
    assert WeightView(pad_cols=Padding(20, 32)).tensor_shape((5, 64)) == (5, 40)
    both = WeightView(transposed=True, pad_cols=Padding(20, 32))
    assert both.tensor_shape((5, 64)) == (40, 5)

    assert WeightView(stacked=4).tensor_shape((12, 5)) == (4, 3, 5)
    halves = WeightView("both", (range(3), range(6, 9)), of=12, stacked=2)
    assert halves.tensor_shape((6, 5)) == (2, 6, 5)
    assert WeightView(tensors=("a", "b", "c")).tensor_shape((12, 5)) == (4, 5)


@given(st.data(), st.sampled_from(GGMLType), st.integers(1, 4), st.integers(1, 5))
def test_matrices_of_a_stack_lie_row_after_row(
    data: st.DataObject, type: GGMLType, stacked: int, rows: int
) -> None:
    """All of them, or the first or last rows of each."""
    cols = type.block_values * data.draw(st.integers(1, 2))
    flat, raw = drawn(type, (stacked * 2 * rows, cols))
    values = dequantize(type, raw, flat.shape)
    info = TensorInfo("t", (stacked, 2 * rows, cols), type, 0, raw.size)
    found, got = WeightView(stacked=stacked).read(info, raw)
    assert found is type
    assert np.shares_memory(got, raw)
    for half in (0, 1):
        runs = tuple(
            range((2 * i + half) * rows, (2 * i + half + 1) * rows) for i in range(stacked)
        )
        view = WeightView("t", runs, of=2 * stacked * rows, stacked=stacked)
        want = values.reshape(stacked, 2, rows, cols)[:, half].reshape(-1, cols)
        assert view.tensor_shape(want.shape) == info.shape
        _, got = view.read(info, raw)
        assert np.array_equal(dequantize(type, got, want.shape), want)


def test_a_weight_of_several_tensors_is_one_after_the_other() -> None:
    found = [drawn(GGMLType.Q8_0, (3, 64), seed) for seed in (1, 2)]
    view = view_of(
        {"ffn_up_exps": WeightView(tensors=("ffn_up.0", "ffn_up.1"))}, "blk.2.ffn_up_exps.weight"
    )
    assert view.names == ("blk.2.ffn_up.0.weight", "blk.2.ffn_up.1.weight")
    data = {name: raw for name, (_, raw) in zip(view.names, found, strict=True)}
    type, got = Part(view, tuple(info for info, _ in found)).read(data.__getitem__)
    assert type is GGMLType.Q8_0
    assert np.array_equal(got, np.concatenate([raw for _, raw in found]))


def test_a_view_is_found_by_the_part_of_a_name() -> None:
    table = {"attn_q": WeightView("attn_qkv"), "output": WeightView("token_embd")}
    assert view_of(table, "blk.11.attn_q.weight").tensor == "blk.11.attn_qkv.weight"
    assert view_of(table, "blk.11.attn_q_norm.weight").tensor == "blk.11.attn_q_norm.weight"
    assert view_of(table, "output.weight").tensor == "token_embd.weight"
    assert view_of(table, "output_norm.bias").tensor == "output_norm.bias"
