"""One sequence in KV pages, for the tests of attention: what to call and with what.

Pages, outputs and (in the binding) scratch are full of NaN before anything is written, and arrays
end at a page that nobody may touch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from octavo.kernels import KV_FORMATS, available_isas, native
from tests.kernels import attention_twin as twin
from tests.kernels.guard import guarded

F32 = np.float32
TYPES = tuple(KV_FORMATS)
DIMS = (16, 32, 64, 80, 96, 128, 256)
every_isa = pytest.mark.parametrize("isa", available_isas())
every_type = pytest.mark.parametrize("kinds", [(k, v) for k in TYPES for v in TYPES], ids="-".join)


@dataclass
class Sequence:
    """One sequence in pages of NaN: what the bindings take, and a call for any of its rows."""

    isa: str
    tokens: int
    layout: native.KVLayout
    group: int = 3
    seed: int = 0
    magnitude: float = 1.0
    window: int = 0
    table: np.ndarray = field(init=False)  # (blocks) int32, shuffled, with holes in the pages
    pages: np.ndarray = field(init=False)  # (bytes) uint8
    q: np.ndarray = field(init=False)  # (tokens, kv_heads * group, k_dim)
    k: np.ndarray = field(init=False)  # (tokens, kv_heads, k_dim)
    v: np.ndarray = field(init=False)

    layer = 1
    scale = 0.125

    def __post_init__(self):
        rng = np.random.default_rng(self.seed)
        blocks = -(-self.tokens // self.layout.block_size)
        self.table = guarded(rng.permutation(blocks + 2)[:blocks].astype(np.int32))
        self.pages = guarded(np.full((blocks + 2) * self.layout.block_stride, 0xFF, np.uint8))
        shape = (self.tokens, self.layout.kv_heads)
        self.q = (
            self.magnitude
            * rng.standard_normal((self.tokens, shape[1] * self.group, self.layout.k_dim))
        ).astype(F32)
        self.k = rng.standard_normal((*shape, self.layout.k_dim)).astype(F32)
        self.v = rng.standard_normal((*shape, self.layout.v_dim)).astype(F32)
        self.write()

    def write(self):
        every = np.arange(self.tokens, dtype=np.int32)
        pages, layout, table = self.pages, self.layout, self.table
        native.write_kv(self.isa, pages, layout, table, every, self.layer, self.k, self.v)

    def rows(self, begin, end, split_chunks=False):
        q = guarded(self.q[begin:end])
        out = guarded(np.full((end - begin, self.q.shape[1], self.layout.v_dim), np.nan, F32))
        native.attention(self.isa, out, q, *self.past(begin), split_chunks)
        return out

    def past(self, begin):
        """What a batch that begins at that position attends to, as the arguments after q."""
        sizes = (self.layer, begin, self.scale, self.window)
        return self.pages, self.layout, self.table, *sizes

    def is_single(self):
        """Tell whether every dot is plain float32 arithmetic, so that the twin has its bits."""
        return all(each.is_single(self.isa) for each in twin.twins(self.layout))

    def check(self, begin, end):
        got = self.rows(begin, end)
        q, past = self.q[begin:end], self.past(begin)
        want, bound = twin.exact_attention(q, *past)
        error = np.abs(got - want)
        worst = np.unravel_index((error / bound).argmax(), error.shape)
        assert np.all(error <= bound), (
            f"{worst}: got {got[worst]}, want {want[worst]}, bound {bound[worst]:.3g}"
        )
        if self.is_single():
            same_bits(got, twin.attention(q, *past, fused=self.isa != "base"))


def layout_of(kinds=("bf16", "bf16"), k_dim=32, v_dim=32, block_size=32, layers=2, kv_heads=2):
    return native.KVLayout(layers, kv_heads, k_dim, v_dim, *kinds, block_size)


def same_bits(got, want):
    different = np.argwhere(got.view(np.uint32) != np.ascontiguousarray(want).view(np.uint32))
    assert len(different) == 0, f"{len(different)} differ, first at {different[0]}"
