"""One sequence in KV pages, for the tests of attention: what to call and with what.

Pages, outputs and (in the binding) scratch are full of NaN before anything is written, and arrays
end at a page that nobody may touch.
"""

from __future__ import annotations

import copyreg
import hashlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

from octavo.kernels import KV_FORMATS, native
from octavo.program.rounding import round_bf16
from octavo.program.slopes import alibi_slopes
from tests.kernels import attention_twin as twin
from tests.kernels.exact import F32, Floats, same_bits
from tests.kernels.guard import guarded
from tests.kernels.page_twin import arithmetic, twins

T = TypeVar("T")
IN_K = "in k"  # in place of V's format: V is a part of K, and pages keep it once
Kinds = tuple[str, str]  # formats of K and of V
DIMS = (16, 32, 64, 80, 96, 128, 256, 512, 576)
_NAMES = [*KV_FORMATS]
_ALIKE = [*zip(_NAMES, _NAMES, strict=True)]
_ALIASES = [(name, IN_K) for name, row in KV_FORMATS.items() if row.gives_v]
# K's product knows nothing of V's format, nor what comes between them of K's.
every_format = pytest.mark.parametrize("kinds", _ALIKE + _ALIASES, ids="-".join)
_OTHERS = [*zip(_NAMES, [*_NAMES[1:], _NAMES[0]], strict=True)]
every_type = pytest.mark.parametrize("kinds", _ALIKE + _OTHERS + _ALIASES, ids="-".join)


@dataclass
class PagedSequence:
    """One sequence in pages of NaN: what the bindings take, and a call for any of its rows."""

    isa: str
    tokens: int
    layout: native.KVLayout
    group: int = 3
    seed: int = 0
    magnitude: float = 1.0
    window: int = 0
    beginning: int = 0  # tokens that rows see beside the window
    softcap: float = 0.0
    has_sinks: bool = False  # the first block is in pages of its own, and in the table there is -1
    has_sink_logits: bool = False
    has_slopes: bool = False
    rounded_slopes: bool = False
    table: NDArray[np.int32] = field(init=False)  # (blocks) shuffled, with holes in the pages
    pages: NDArray[np.uint8] = field(init=False)  # (bytes)
    q: Floats = field(init=False)  # (tokens, kv_heads * group, k_dim)
    far_q: Floats = field(init=False)  # likewise
    k: Floats = field(init=False)  # (tokens, kv_heads, k_dim)
    v: Floats = field(init=False)  # a part of k where V aliases K
    sink_logits: Floats | None = field(init=False)  # (kv_heads * group,)
    slopes: Floats | None = field(init=False)

    layer = 1
    scale = 0.125

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        blocks = -(-self.tokens // self.layout.block_size)
        self.table = guarded(rng.permutation(blocks + 2)[:blocks].astype(np.int32))
        self.pages = guarded(np.full((blocks + 2) * self.layout.block_stride, 0xFF, np.uint8))
        self.sinks = self._make_sinks() if self.has_sinks else None
        heads, k_dim, v_dim = self.layout.kv_heads, self.layout.k_dim, self.layout.v_dim
        q = self.magnitude * rng.standard_normal((self.tokens, heads * self.group, k_dim))
        self.q = q.astype(F32)
        self.far_q = q[:, ::-1].astype(F32)
        self.k = rng.standard_normal((self.tokens, heads, k_dim)).astype(F32)
        v = rng.standard_normal((self.tokens, heads, v_dim)).astype(F32)
        self.v = self.k[..., :v_dim] if self.layout.v_aliases_k else v
        logits = 3 * rng.standard_normal(heads * self.group)
        self.sink_logits = guarded(logits.astype(F32)) if self.has_sink_logits else None
        slopes = np.array(alibi_slopes(heads * self.group), F32)
        slopes = round_bf16(slopes) if self.rounded_slopes else slopes
        self.slopes = guarded(slopes) if self.has_slopes else None
        self.write()

    def write(self) -> None:
        self.write_some(np.arange(self.tokens, dtype=np.int32))

    def _make_sinks(self) -> twin.Sinks:
        self.table[0] = -1
        of, dims = self.layout, (self.layout.k_dim, self.layout.v_dim)
        layout = layout_of(("bf16", "bf16"), *dims, of.block_size, of.layers, of.kv_heads)
        return layout, guarded(np.full(3 * layout.block_stride, 0xFF, np.uint8)), 1

    def write_some(self, at: NDArray[np.int32]) -> None:
        if self.sinks:
            layout, pages, block = self.sinks
            first = at[at < layout.block_size]
            where = pages, layout, np.array([block], np.int32), first, self.layer
            native.write_kv(self.isa, *where, self.k[first], self.v[first])
            at = at[at >= layout.block_size]
        where = self.pages, self.layout, self.table, at, self.layer
        v = None if self.layout.v_aliases_k else self.v[at]
        native.write_kv(self.isa, *where, self.k[at], v)

    def rows(
        self, begin: int, end: int, split_chunks: bool = False, shared_chunks: bool = False
    ) -> Floats:
        q = guarded(self.q[begin:end])
        out = guarded(np.full((end - begin, self.q.shape[1], self.layout.v_dim), np.nan, F32))
        past = self.past(begin, end)
        far_q = None if past.far_q is None else guarded(past.far_q)
        native.attention(
            self.isa, out, q, *past[:-3], split_chunks, shared_chunks, past.sinks, past.beginning,
            far_q,
        )  # fmt: skip
        return out

    def past(self, begin: int, end: int) -> twin.Past:
        """The binding's arguments after q for a batch of rows at those positions."""
        sizes = self.layer, begin, self.scale, self.window, self.softcap
        of_heads = self.slopes, self.rounded_slopes, self.sink_logits
        more = self.sinks, self.beginning, self.far_q[begin:end] if self.beginning else None
        return twin.Past(self.pages, self.layout, self.table, *sizes, *of_heads, *more)

    def check(self, begin: int, end: int) -> None:
        got = self.rows(begin, end)
        q, past = self.q[begin:end], self.past(begin, end)
        want, bound = once_for_all_levels(twin.exact_attention, q, past)
        error = np.abs(got - want)
        worst = np.unravel_index((error / bound).argmax(), error.shape)
        assert np.all(error <= bound), (worst, got[worst], want[worst], bound[worst])
        if all(each.is_single(self.isa) for each in twins(self.layout, self.isa)):
            level = arithmetic(self.layout, self.isa)
            same_bits(got, once_for_all_levels(twin.attention, q, past, level))


_KEPT: dict[bytes, Any] = {}
copyreg.pickle(native.KVLayout, lambda of: (native.KVLayout, (
    of.layers, of.kv_heads, of.k_dim, of.v_dim, of.k_format, of.v_format, of.block_size,
    of.v_aliases_k,
)))  # fmt: skip


def once_for_all_levels(find: Callable[..., T], q: Floats, past: twin.Past, *level: str) -> T:
    """Return what a twin finds, which takes longer than all the kernels: a level that has brought
    the same bits before it is told the same."""
    key = hashlib.blake2b(pickle.dumps((find.__name__, q, past, level))).digest()
    if key not in _KEPT:
        if len(_KEPT) > 100:
            _KEPT.clear()
        _KEPT[key] = find(q, past, *level)
    found: T = _KEPT[key]
    return found


def layout_of(
    kinds: Kinds = ("bf16", "bf16"), k_dim: int = 32, v_dim: int = 32, block_size: int = 32,
    layers: int = 2, kv_heads: int = 2,
) -> native.KVLayout:  # fmt: skip
    """Of K that V is a part of there are at least as many values."""
    if kinds[1] != IN_K:
        return native.KVLayout(layers, kv_heads, k_dim, v_dim, *kinds, block_size)
    sizes = layers, kv_heads, max(k_dim, v_dim), v_dim, kinds[0], kinds[0], block_size
    return native.KVLayout(*sizes, v_aliases_k=True)
