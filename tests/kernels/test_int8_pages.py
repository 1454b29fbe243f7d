"""Int8 pages: what a token's bytes are, by hand, and what whole numbers promise beyond the other
formats: one result on every level whose fma rounds once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.kernels import native
from octavo.program.reference import rotate
from tests.kernels import attention_twin as twin
from tests.kernels.attention_case import DIMS, Kinds, PagedSequence, layout_of
from tests.kernels.exact import F32, Floats, same_bits
from tests.kernels.guard import guarded
from tests.kernels.levels import ISAS, every_isa

INT8 = ("int8", "int8")
FUSED = [isa for isa in ISAS if isa != "base"]  # levels whose fma rounds once


def token_of(isa: str, k: Floats, v: Floats) -> tuple[list[int], float, list[int], float]:
    """The bytes and the scale of K and of V of one token of 16 dims."""
    layout = native.KVLayout(1, 1, 16, 16, *INT8, 16)
    pages = guarded(np.zeros(layout.block_stride, np.uint8))
    table, at = np.zeros(1, np.int32), np.array([6], np.int32)
    native.write_kv(isa, pages, layout, table, at, 0, k.reshape(1, 1, 16), v.reshape(1, 1, 16))
    rows = [pages[where] for where in twin.row_bytes(layout, 0, 0, 0, 6)]
    (k_bytes, k_scale), (v_bytes, v_scale) = ((r[:16].tolist(), r[16:].view(F32)) for r in rows)
    return k_bytes, float(k_scale[0]), v_bytes, float(v_scale[0])


@every_isa
def test_a_byte_is_128_more_than_the_value_over_the_scale_with_ties_to_even(isa: str) -> None:
    """Rotated twice a row is what it was, here without a rounding."""
    k = np.array(
        [127, -127, 0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 63.375, 63.625, 1, 2, 3, 4], F32
    )
    k_bytes, k_scale, v_bytes, v_scale = token_of(isa, rotate(k), k * F32(2.0**-9))
    want = [255, 1, 128, 128, 128, 130, 130, 128, 126, 126, 191, 192, 129, 130, 131, 132]
    assert (k_bytes, k_scale) == (want, 1.0)
    assert (v_bytes, v_scale) == (want, 2.0**-9)


@every_isa
def test_a_row_of_zeros_has_scale_0_and_a_row_with_a_nan_an_infinite_one(isa: str) -> None:
    k, v = np.zeros(16, F32), np.ones(16, F32)
    for poison in (np.nan, np.inf, -np.inf):
        v[11] = poison
        assert token_of(isa, k, v) == ([128] * 16, 0.0, [128] * 16, np.inf)


def test_smollm2_keeps_136_bytes_a_token_and_head_where_bf16_keeps_256() -> None:
    int8, bf16 = (native.KVLayout(30, 3, 64, 64, kind, kind, 32) for kind in ("int8", "bf16"))
    assert int8.k_head_stride == int8.v_head_stride == 32 * (64 + 4)
    assert int8.block_stride / bf16.block_stride == 384 / 720  # 382.5 KiB in whole pages


def hadamard(dim: int) -> Floats:
    """Sylvester's matrix, orthonormal, in blocks of the largest power of two that divides dim."""
    block, one = np.ones((1, 1)), np.array([[1, 1], [1, -1]])
    while dim % (2 * len(block)) == 0:
        block = np.kron(block, one)
    return np.kron(np.eye(dim // len(block)), block / np.sqrt(len(block)))


@pytest.mark.parametrize("dim", [16, 48, 64, 80, 96, 128, 256])
@every_isa
def test_k_is_kept_rotated_and_v_is_not(isa: str, dim: int) -> None:
    layout = native.KVLayout(1, 1, dim, dim, *INT8, 16)
    pages = guarded(np.zeros(layout.block_stride, np.uint8))
    row = np.random.default_rng(dim).standard_normal(dim).astype(F32)
    row[5] = 40.0  # as a few channels of K are
    table, at = np.zeros(1, np.int32), np.array([9], np.int32)
    native.write_kv(isa, pages, layout, table, at, 0, *(row.reshape(1, 1, dim),) * 2)
    k, v = (
        twin.KV_TWINS["int8"].decode(pages[where]) for where in twin.row_bytes(layout, 0, 0, 0, 9)
    )
    rotated = row @ hadamard(dim)
    assert np.abs(k - rotated).max() <= 0.502 * np.abs(rotated).max() / 127
    assert np.abs(v - row).max() <= 0.502 * np.abs(row).max() / 127
    assert np.abs(k @ hadamard(dim) - row).std() < np.abs(v - row).std()


@pytest.mark.parametrize("kinds", [INT8, ("int8", "f32"), ("f32", "int8")], ids="-".join)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_bits_are_the_same_on_every_level_whose_fma_rounds_once(
    kinds: Kinds, data: st.DataObject
) -> None:
    draw, dims = data.draw, st.sampled_from(DIMS)
    layout = layout_of(kinds, draw(dims), draw(dims), draw(st.sampled_from([16, 32, 64])))
    end = draw(st.integers(1, 300))
    shape: dict[str, Any] = {
        "group": draw(st.integers(1, 9)), "seed": draw(st.integers(0, 99)),
        "window": draw(st.integers(0, end + 1)), "softcap": draw(st.sampled_from([0.0, 3.0])),
        "magnitude": draw(st.sampled_from([0.0, 1.0, 30.0])),
    }  # fmt: skip
    begin = end - draw(st.integers(1, min(end, 60)))
    want = None
    for isa in FUSED:
        got = PagedSequence(isa, end, layout, **shape).rows(begin, end)
        want = got if want is None else want
        same_bits(got, want)


@every_isa
def test_one_large_value_makes_its_own_token_coarse_and_no_other(isa: str) -> None:
    seq = PagedSequence(isa, 90, layout_of(INT8), group=1)
    want = seq.rows(0, 90)
    seq.k[70, :, 3], seq.v[70, :, 3] = 1e6, 1e6
    seq.write()
    same_bits(seq.rows(0, 70), want[:70])


@every_isa
def test_a_nan_weighed_with_exactly_0_is_not_seen(isa: str) -> None:
    """2^-126 is the least weight: below it there is none, and no digit of its token."""
    seq = PagedSequence(isa, 130, layout_of(("f32", "int8"), kv_heads=1), group=1)
    seq.k[:], seq.q[:] = 1.0, 100.0
    seq.k[5], seq.v[5] = -1.0, np.nan
    seq.write()
    assert np.isfinite(seq.rows(129, 130)).all()
    seq.k[5] = 1.0
    seq.write()
    assert np.isnan(seq.rows(129, 130)).all()
