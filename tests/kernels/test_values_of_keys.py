"""V that is a part of K: read from K's pages it gives the bits that it gives with pages of its own.

That such pages keep the promises of all others is tested where those are (`every_type`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from octavo.kernels import KV_FORMATS, native
from tests.kernels.attention_case import IN_K, PagedSequence, layout_of
from tests.kernels.exact import F32, same_bits
from tests.kernels.levels import every_isa

GIVE_V = [name for name, row in KV_FORMATS.items() if row.gives_v]
SHAPES = (576, 512), (80, 64), (112, 80), (48, 16), (32, 32)
every_format = pytest.mark.parametrize("kind", GIVE_V)
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "window": {"window": 70},
    "beginning": {"window": 70, "beginning": 37},
    "softcap, sink logits and slopes": {
        "softcap": 2.0, "has_sink_logits": True, "has_slopes": True
    },
}  # fmt: skip


def two_and_one(
    isa: str, kind: str, tokens: int, dims: tuple[int, int], **options: Any
) -> tuple[PagedSequence, PagedSequence]:
    """The same sequence in pages of K and V, and in pages of K alone."""
    sizes = {"block_size": options.pop("block_size", 32), "kv_heads": options.pop("kv_heads", 1)}
    one = PagedSequence(isa, tokens, layout_of((kind, IN_K), *dims, **sizes), **options)
    two = PagedSequence(isa, tokens, layout_of((kind, kind), *dims, **sizes), **options)
    two.q, two.far_q, two.k, two.v = one.q, one.far_q, one.k, one.v.copy()
    two.write()
    return two, one


def test_formats_of_plain_values_give_v() -> None:
    assert GIVE_V == ["f32", "bf16"]  # int8 and int4 keep K in another basis


@every_isa
@every_format
@pytest.mark.parametrize("dims", SHAPES)
def test_every_cut_has_the_bits_of_v_stored_twice(
    isa: str, kind: str, dims: tuple[int, int]
) -> None:
    two, one = two_and_one(isa, kind, 300, dims, group=5)
    for begin, end in ((0, 40), (0, 1), (255, 300), (299, 300)):
        want = two.rows(begin, end)
        assert np.isfinite(want).all()
        same_bits(one.rows(begin, end), want)
        same_bits(one.rows(begin, end, split_chunks=True), want)


@every_isa
@every_format
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("block_size", [16, 64])
def test_every_option_has_the_bits_of_v_stored_twice(
    isa: str, kind: str, name: str, block_size: int
) -> None:
    sizes = {"block_size": block_size, "kv_heads": 2}
    two, one = two_and_one(isa, kind, 530, (80, 64), group=16, **sizes, **OPTIONS[name])
    for begin, end in ((100, 140), (470, 530), (529, 530)):
        want = two.rows(begin, end)
        same_bits(one.rows(begin, end), want)
        same_bits(one.rows(begin, end, shared_chunks=True), want)


@every_isa
@every_format
def test_any_bits_come_through(isa: str, kind: str) -> None:
    """NaN, infinities, denormals and -0 among the values of tokens that rows see."""
    two, one = two_and_one(isa, kind, 90, (48, 32), group=2)
    at = np.array([3, 17, 40, 41, 63, 64, 89])
    values = np.array([np.nan, np.inf, -np.inf, 1e-40, -0.0, 3.4e38, -1e-42], F32)
    for seq in (two, one):
        seq.k[at, 0, 5] = values
    two.v = two.k[..., :32].copy()
    for seq in (two, one):
        seq.write()
    assert not np.isfinite(two.rows(80, 90)).all()
    same_bits(one.rows(80, 90), two.rows(80, 90))
    same_bits(one.rows(0, 30), two.rows(0, 30))


def test_pages_have_no_bytes_of_v() -> None:
    two, one = (layout_of(("bf16", v), 576, 512, layers=27, kv_heads=1) for v in ("bf16", IN_K))
    assert one.layer_stride == one.k_head_stride == two.k_head_stride == 32 * 576 * 2
    assert one.v_offset == 0
    assert two.layer_stride == 32 * (576 + 512) * 2
    assert (one.v_aliases_k, two.v_aliases_k) == (True, False)


@pytest.mark.parametrize(
    ("k_format", "v_format"), [("int8", "int8"), ("int4", "int4"), ("f32", "bf16")]
)
def test_formats_that_do_not_give_v_are_refused(k_format: str, v_format: str) -> None:
    with pytest.raises(ValueError, match="v_aliases_k: expected K and V of one format that gives"):
        native.KVLayout(1, 1, 64, 32, k_format, v_format, 32, v_aliases_k=True)


def test_v_wider_than_k_is_refused() -> None:
    with pytest.raises(ValueError, match="v_dim: expected at most k_dim where V is a part of K"):
        native.KVLayout(1, 1, 32, 48, "bf16", "bf16", 32, v_aliases_k=True)


@pytest.mark.parametrize(
    ("v_format", "given", "said"),
    [(IN_K, True, "v: expected None, for it is a part of k"), ("bf16", False, "v: expected an")],
)
def test_v_is_given_where_pages_have_it_and_nowhere_else(
    v_format: str, given: bool, said: str
) -> None:
    seq = PagedSequence("base", 20, layout_of(("bf16", v_format), kv_heads=1))
    at = np.arange(20, dtype=np.int32)
    v = np.ascontiguousarray(seq.v) if given else None
    with pytest.raises(ValueError, match=said):
        native.write_kv("base", seq.pages, seq.layout, seq.table, at, 1, seq.k, v)
