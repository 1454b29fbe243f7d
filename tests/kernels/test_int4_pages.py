"""Int4 pages: what a token's bytes are, by hand."""

from __future__ import annotations

import numpy as np

from octavo.kernels import native
from octavo.program.rounding import rotate
from tests.kernels.exact import F32, Floats
from tests.kernels.guard import guarded
from tests.kernels.kv_floats import Bytes
from tests.kernels.kv_nibbles import Halves
from tests.kernels.levels import every_isa
from tests.kernels.page_twin import row_bytes

Group = tuple[list[int], float, float]  # nibbles, scale, min


def groups_of(isa: str, k: Floats, v: Floats) -> tuple[list[Group], list[Group]]:
    """The groups of K and of V of one token."""
    dim = len(k)
    layout = native.KVLayout(1, 1, dim, dim, "int4", "int4", 16)
    pages = guarded(np.zeros(layout.block_stride, np.uint8))
    table, at = np.zeros(1, np.int32), np.array([6], np.int32)
    native.write_kv(isa, pages, layout, table, at, 0, k.reshape(1, 1, dim), v.reshape(1, 1, dim))
    rows = [pages[where].reshape(-1, 20) for where in row_bytes(layout, 0, 0, 0, 6)]
    k_groups, v_groups = ([_group(raw) for raw in row] for row in rows)
    return k_groups, v_groups


def _group(raw: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> Group:
    scale, least = raw[16:].view(np.float16)
    return [*(raw[:16] & 15).tolist(), *(raw[:16] >> 4).tolist()], float(scale), float(least)


@every_isa
def test_a_nibble_is_the_value_less_the_min_over_the_scale_with_ties_to_even(isa: str) -> None:
    """Rotated twice a row is what it was, here without a rounding."""
    n = np.array([0, 15, 0.5, 1.5, 2.5, 7.375, 7.625, 3, 4, 5, 6, 7, 8, 9, 10, 11], F32)
    whole = [0, 15, 0, 2, 2, 7, 8, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    k, v = groups_of(isa, rotate(n - F32(6)), F32(0.25) * n - F32(1))
    assert k == [([*whole, *[0] * 16], 1.0, -6.0)]
    assert v == [([*whole, *[0] * 16], 0.25, -1.0)]


@every_isa
def test_each_32_values_have_a_scale_and_a_min_and_the_last_16_their_own(isa: str) -> None:
    n = np.arange(80) % 16
    v = np.repeat([1.0, 8.0, 0.5], [32, 32, 16]) * n + np.repeat([0.0, -7.0, 99.0], [32, 32, 16])
    _, got = groups_of(isa, np.zeros(80, F32), v.astype(F32))
    every = list(range(16))
    assert got == [
        (every * 2, 1.0, 0.0), (every * 2, 8.0, -7.0), ([*every, *[0] * 16], 0.5, 99.0)
    ]  # fmt: skip


@every_isa
def test_equal_values_have_scale_0_and_a_nan_makes_its_group_alone_infinite(isa: str) -> None:
    k, v = np.zeros(64, F32), np.full(64, 3.0, F32)
    none = [0] * 32
    for poison in (np.nan, np.inf, -np.inf):
        v[40] = poison
        got = groups_of(isa, k, v)
        assert got == ([(none, 0.0, 0.0)] * 2, [(none, 0.0, 3.0), (none, np.inf, 0.0)])


@every_isa
def test_mins_are_the_nearest_fp16_and_the_largest_for_what_is_larger(isa: str) -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = np.sort(every[np.isfinite(every)].astype(F32))
    between = (halves[1:] + halves[:-1]) / 2
    x = np.concatenate([halves, between, np.nextafter(between, F32(np.inf)), [F32(1e9), F32(-1e9)]])
    x = x.astype(F32)
    layout = native.KVLayout(1, 1, 16, 16, "int4", "int4", 64)
    blocks = -(-len(x) // 64)
    pages = guarded(np.zeros(blocks * layout.block_stride, np.uint8))
    rows = np.repeat(x, 16).reshape(-1, 1, 16)
    where = np.arange(blocks, dtype=np.int32), np.arange(len(x), dtype=np.int32)
    native.write_kv(isa, pages, layout, *where, 0, np.zeros_like(rows), rows)
    got = _mins(pages, layout, len(x))
    want = np.clip(x, -65504, 65504).astype(np.float16)
    np.testing.assert_array_equal(got.astype(F32), want.astype(F32))


def _mins(pages: Bytes, layout: native.KVLayout, tokens: int) -> Halves:
    """The mins of V of one head of 16 dims, whose unit is 320 bytes."""
    at = np.arange(tokens)
    begin = at // 64 * layout.block_stride + layout.v_offset + at % 64 // 16 * 320
    where = (begin + 288 + at % 16 * 2)[:, None] + np.arange(2)
    mins: Halves = np.ascontiguousarray(pages[where]).view(np.float16)[:, 0]
    return mins


def test_smollm2_keeps_40_bytes_a_token_and_head_where_bf16_keeps_128() -> None:
    int4, mixed, bf16 = (
        native.KVLayout(30, 3, 64, 64, *kinds, 32)
        for kinds in (("int4", "int4"), ("int8", "int4"), ("bf16", "bf16"))
    )
    assert int4.k_head_stride == int4.v_head_stride == mixed.v_head_stride == 32 * 40
    assert int4.block_stride / bf16.block_stride == 228 / 720  # 225 KiB in whole pages
    assert mixed.block_stride / bf16.block_stride == 304 / 720
