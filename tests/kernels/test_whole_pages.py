"""Pages of whole numbers, int8 and int4: what they promise beyond the other formats. K is kept in a
basis where no value is far larger than the rest, and bits are one on every level whose fma rounds
once."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.kernels import native
from tests.kernels.attention_case import DIMS, Kinds, PagedSequence, layout_of
from tests.kernels.exact import F32, Floats, same_bits
from tests.kernels.guard import guarded
from tests.kernels.kv_twin import KV_TWINS
from tests.kernels.levels import ISAS, every_isa
from tests.kernels.page_twin import row_bytes

FUSED = [isa for isa in ISAS if isa != "base"]  # levels whose fma rounds once
WHOLE = ("int8", "int4")
SINGLE = (*WHOLE, "f32")  # formats whose bits no level has of its own
every_whole = pytest.mark.parametrize("kind", WHOLE)


def hadamard(dim: int) -> Floats:
    """Sylvester's matrix, orthonormal, in blocks of the largest power of two that divides dim."""
    block, one = np.ones((1, 1)), np.array([[1, 1], [1, -1]])
    while dim % (2 * len(block)) == 0:
        block = np.kron(block, one)
    return np.kron(np.eye(dim // len(block)), block / np.sqrt(len(block)))


@pytest.mark.parametrize("dim", [16, 48, 64, 80, 96, 128, 256, 512, 576])
@every_whole
@every_isa
def test_k_is_kept_rotated_and_v_is_not(isa: str, kind: str, dim: int) -> None:
    layout = native.KVLayout(1, 1, dim, dim, kind, kind, 16)
    pages = guarded(np.zeros(layout.block_stride, np.uint8))
    row = np.random.default_rng(dim).standard_normal(dim).astype(F32)
    row[5] = 40.0  # as a few channels of K are
    table, at = np.zeros(1, np.int32), np.array([9], np.int32)
    native.write_kv(isa, pages, layout, table, at, 0, *(row.reshape(1, 1, dim),) * 2)
    k, v = (KV_TWINS[kind].decode(pages[where])[:dim] for where in row_bytes(layout, 0, 0, 0, 9))
    rotated = row @ hadamard(dim)
    for got, want in ((k, rotated), (v, row)):
        step = np.abs(want).max() / 127 if kind == "int8" else np.ptp(want) / 15
        assert np.abs(got - want).max() <= 0.51 * step
    in_one_group = dim <= 32
    assert in_one_group or np.abs(k @ hadamard(dim) - row)[:32].std() < np.abs(v - row)[:32].std()


@pytest.mark.parametrize(
    "kinds", [k for k in product(SINGLE, repeat=2) if k != ("f32", "f32")], ids="-".join
)
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


@every_whole
@every_isa
def test_one_large_value_makes_its_own_token_coarse_and_no_other(isa: str, kind: str) -> None:
    seq = PagedSequence(isa, 90, layout_of((kind, kind)), group=1)
    want = seq.rows(0, 90)
    seq.k[70, :, 3], seq.v[70, :, 3] = 1e6, 1e6
    seq.write()
    same_bits(seq.rows(0, 70), want[:70])


@every_whole
@every_isa
def test_a_nan_weighed_with_exactly_0_is_not_seen(isa: str, kind: str) -> None:
    """2^-126 is the least weight: below it there is none, and no digit of its token."""
    seq = PagedSequence(isa, 130, layout_of(("f32", kind), kv_heads=1), group=1)
    seq.k[:], seq.q[:] = 1.0, 100.0
    seq.k[5], seq.v[5] = -1.0, np.nan
    seq.write()
    assert np.isfinite(seq.rows(129, 130)).all()
    seq.k[5] = 1.0
    seq.write()
    assert np.isnan(seq.rows(129, 130)).all()
