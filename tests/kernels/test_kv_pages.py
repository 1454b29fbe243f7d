"""The layout of KV pages and the writers of one token's K and V, on every ISA level."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from octavo.kernels import native
from tests.kernels.attention_case import Kinds, PagedSequence, every_type, layout_of
from tests.kernels.exact import Floats
from tests.kernels.levels import every_isa
from tests.kernels.page_twin import write_kv


def test_layout_of_smollm2_is_24_kib_a_layer_and_720_kib_a_block() -> None:
    layout = native.KVLayout(30, 3, 64, 64, "bf16", "bf16", 32)
    assert layout.k_head_stride == layout.v_head_stride == 4096
    assert layout.v_offset == 3 * 4096
    assert layout.layer_stride == 24 * 1024
    assert layout.block_stride == 720 * 1024
    assert (layout.k_format, layout.v_format, layout.block_size) == ("bf16", "bf16", 32)


def test_block_stride_is_whole_pages_and_k_and_v_have_their_own_size() -> None:
    layout = native.KVLayout(3, 1, 16, 80, "f32", "bf16", 16)
    assert (layout.k_head_stride, layout.v_head_stride) == (16 * 16 * 4, 16 * 80 * 2)
    assert layout.layer_stride == 1024 + 2560
    assert layout.block_stride == 12288  # 3 * 3584 = 10752, rounded up to 4096


LAYOUT: dict[str, Any] = {
    "layers": 1, "kv_heads": 1, "k_dim": 64, "v_dim": 64, "k_format": "bf16", "v_format": "bf16",
    "block_size": 32,
}  # fmt: skip
HUGE = {"layers": 2**24, "kv_heads": 2**30}  # 2^67 bytes: 0 as an int64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers: expected at least 1, got 0"),
        ({"kv_heads": 0}, "kv_heads: expected at least 1, got 0"),
        ({"k_dim": 24}, "k_dim: expected a multiple of 16 from 16 to 576, got 24"),
        ({"v_dim": 592}, "v_dim: expected a multiple of 16 from 16 to 576, got 592"),
        ({"k_format": "int9"}, "k_format: expected f32.*bf16.*, got int9"),
        ({"v_format": "f16"}, "v_format: expected f32.*bf16.*, got f16"),
        ({"block_size": 48}, "block_size: expected 16, 32 or 64, got 48"),
        (HUGE, r"layers and kv_heads: expected blocks below 2\^40 bytes, got 1073741824"),
    ],
)
def test_layout_refuses(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        native.KVLayout(**(LAYOUT | change))


@every_isa
@every_type
@pytest.mark.parametrize("block_size", [16, 32, 64])
def test_writers_fill_exactly_the_tokens_own_bytes(isa: str, kinds: Kinds, block_size: int) -> None:
    layout = layout_of(kinds, k_dim=48, v_dim=80, block_size=block_size)
    seq = PagedSequence(isa, 70, layout)
    seq.k[3, 0, :6] = [np.nan, np.inf, -np.inf, 1e-40, -0.0, 3.4e38]
    seq.v[0, 1, :5] = [1e-40, -0.0, 3.4e38, -3.4e38, 1e38]
    seq.k[16], seq.v[16], seq.v[31], seq.v[32, :, 7] = 0.0, -0.0, 1e-40, -np.inf
    seq.pages[:] = 0xFF
    some = np.array([0, 1, 3, 16, 31, 32, 63, 64, 69], np.int32)
    seq.write_some(some)
    want = np.full_like(seq.pages, 0xFF)
    write_kv(want, layout, seq.table, some, 1, seq.k[some], seq.v[some])
    np.testing.assert_array_equal(seq.pages, want)


@every_isa
@pytest.mark.parametrize("kind", ["bf16", "int8", "int4"])
def test_threads_write_neighbouring_tokens_at_once(isa: str, kind: str) -> None:
    """Tokens 2i and 2i+1 share the 32-bit words of V: a read-modify-write would lose one."""
    seq = PagedSequence(isa, 256, layout_of((kind, kind), k_dim=16, v_dim=256))
    want = seq.pages.copy()
    for _ in range(5):
        seq.pages[:] = 0xFF
        halves = [np.arange(start, 256, 2, dtype=np.int32) for start in (0, 1)]
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(seq.write_some, halves))
        np.testing.assert_array_equal(seq.pages, want)


def test_write_kv_refuses_shapes_and_positions() -> None:
    seq = PagedSequence("base", 70, layout_of())

    def write(positions: list[int], v: Floats = seq.v[:1]) -> None:
        at = np.array(positions, np.int32)
        native.write_kv(seq.isa, seq.pages, seq.layout, seq.table, at, 1, seq.k[:1], v)

    with pytest.raises(ValueError, match="k: expected 2 tokens, got 1"):
        write([0, 1])
    with pytest.raises(ValueError, match="positions: expected at least 0, got -1"):
        write([-1])
    with pytest.raises(ValueError, match="block_table: expected 4 blocks, got 3"):
        write([96])
    with pytest.raises(ValueError, match="v: expected 32 dims, got 16"):
        write([0], v=seq.v[:1, :, :16].copy())
