"""V that is a part of K: programs that store it once have the bits of those that store it apart."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from octavo.config import EngineConfig
from octavo.engine.runner import kv_layout
from octavo.kernels import KV_FORMATS, native
from octavo.planning.memory import page_formats
from octavo.program.builder import ProgramBuilder
from octavo.program.cost import Work, cost, uniform_weights
from octavo.program.fuse import RowKind, fuse
from octavo.program.fused_ops import QKV
from octavo.program.kv_bytes import PageFormats, pages_bytes
from octavo.program.ops import Attend, KVSpec, StoreKV, WeightSpec
from octavo.program.program import Program
from octavo.program.slide import slide
from octavo.weights.ggml_type import GGMLType
from tests.exactness.programs import Latent, latent
from tests.program.one_sequence import check_near, reference_logits, tokens_of
from tests.program.parts import Parts, make_parts
from tests.tiny import all_logits, make_runner, random_model

POOL = native.ThreadPool(2)
VOCAB = 40
TOKENS = tokens_of(VOCAB)
MANY = np.random.default_rng(6).integers(0, VOCAB, 200).tolist()
ONCE, APART = (latent(Latent(3, 2, VOCAB, v_in_k=v_in_k)) for v_in_k in (True, False))
PAIRS = [f"k={k},v={v}" for k in KV_FORMATS for v in KV_FORMATS]


@pytest.mark.parametrize("block_size", [16, 64])
@pytest.mark.parametrize("kv_dtype", PAIRS)
def test_bits_are_those_of_v_stored_apart(kv_dtype: str, block_size: int) -> None:
    """Int4 with sinks, which have pages of K and of V."""
    found = []
    for program in (ONCE, APART):
        model = random_model(program, POOL, type=GGMLType.F32)
        runner = make_runner(model, POOL, kv_dtype=kv_dtype, block_size=block_size)
        found.append(all_logits(runner, TOKENS))
        assert np.array_equal(all_logits(runner, TOKENS, cuts=(1, 7, 50)), found[-1])
    assert np.isfinite(found[0]).all()
    assert np.array_equal(found[0], found[1])


@pytest.mark.parametrize("kv_dtype", ["bf16", "f32", "int8"])
def test_bits_are_those_of_v_stored_apart_where_a_context_slides(kv_dtype: str) -> None:
    once, apart, whole = (
        all_logits(make_runner(random_model(program, POOL, type=GGMLType.F32), POOL,
                               kv_dtype=kv_dtype, max_rows=200), MANY)
        for program in (slide(ONCE, 64, 32), slide(APART, 64, 32), ONCE)
    )  # fmt: skip
    assert np.array_equal(once, apart)
    assert np.array_equal(once[:64], whole[:64])
    assert not (once[64:] == whole[64:]).all(axis=1).any()


@pytest.mark.parametrize("kv_dtype", PAIRS)
def test_pages_keep_v_once_where_both_formats_are_one_that_gives_it(kv_dtype: str) -> None:
    config = EngineConfig.parse({"kv_dtype": kv_dtype})
    once, apart = kv_layout(ONCE, 0, config), kv_layout(APART, 0, config)
    assert once.v_aliases_k == (kv_dtype in ("k=f32,v=f32", "k=bf16,v=bf16"))
    assert not apart.v_aliases_k
    assert (once.layer_stride < apart.layer_stride) == once.v_aliases_k
    formats = page_formats(ONCE, config)
    nbytes = [pages_bytes(program.groups[0], formats, 32, 64) for program in (ONCE, APART)]
    assert nbytes == [once.layer_stride, apart.layer_stride]


def test_sinks_have_pages_of_k_and_v() -> None:
    config = EngineConfig.parse({"kv_dtype": "int4"})
    layout = kv_layout(ONCE, 0, config, is_sinks=True)
    assert not layout.v_aliases_k
    assert layout.layer_stride == 32 * 2 * (80 + 64)
    assert pages_bytes(ONCE.groups[0], page_formats(ONCE, config), 0, 32) == layout.layer_stride


def test_costs_read_and_write_k_alone() -> None:
    formats = PageFormats.everywhere(KV_FORMATS["bf16"])
    costs = cost(ONCE, Work(5, 30), weight_bytes=uniform_weights(ONCE, 8), formats=formats)
    for op, each in zip(ONCE.ops, costs, strict=True):
        if isinstance(op, Attend):
            assert each.kv_read_bytes == 35 * 2 * 80
        if isinstance(op, StoreKV):
            assert each.kv_write_bytes == 5 * 2 * 80
            assert each.activation_bytes == 5 * 4 * 80


def linears(*, v_in_k: bool) -> Program:
    """q, k and v of one row, by matrices alone."""
    p = ProgramBuilder()
    group = p.kv_group(KVSpec(2, 48, 32, v_in_k=v_in_k))
    h = p.embed(WeightSpec("table", (VOCAB, 64)))
    q, k = (p.linear(h, WeightSpec(name, (n * 48, 64))) for name, n in (("q", 4), ("k", 2)))
    v = None if v_in_k else p.linear(h, WeightSpec("v", (2 * 32, 64)))
    a = p.attention(q, k, v, heads=4, group=group, scale=0.2)
    h = p.linear(a, WeightSpec("o", (64, 4 * 32)), add=h)
    return p.logits(h, WeightSpec("head", (VOCAB, 64)))


def test_several_kv_heads_equal_the_reference_and_store_as_they_are() -> None:
    program = linears(v_in_k=True)
    model = random_model(program, POOL, type=GGMLType.F32)
    for kv_dtype, fuse_ops in (("f32", True), ("f32", False)):
        runner = make_runner(model, POOL, kv_dtype=kv_dtype, fuse=fuse_ops)
        check_near(all_logits(runner, TOKENS), reference_logits(program, model.exact, TOKENS))
    for given, joined in ((program, 0), (linears(v_in_k=False), 1)):
        kinds: dict[str, RowKind] = dict.fromkeys(given.weights(), "af32")
        ops = fuse(given, kinds).ops
        assert sum(isinstance(op, QKV) for op in ops) == joined


def once_with(k_dim: int, v_dim: int, v_aliases_k: bool) -> Callable[[Parts], None]:
    layout = native.KVLayout(2, 1, k_dim, v_dim, "f32", "f32", 32, v_aliases_k=v_aliases_k)
    return lambda parts: setattr(parts, "layout", layout)


@pytest.mark.parametrize(
    ("program", "change", "said"),
    [
        (APART, once_with(80, 64, True), "y, where V aliases K: expected -1, got"),
        (ONCE, once_with(80, 96, False), "y, a part of x as wide as V: expected 1 to 80, got 96"),
        (linears(v_in_k=False), lambda parts: setattr(
            parts, "layout", native.KVLayout(1, 2, 48, 32, "f32", "f32", 32, v_aliases_k=True)
        ), "group's V aliases K: expected 0, got 1"),
    ],
)  # fmt: skip
def test_a_core_refuses_v_that_pages_have_no_place_for(
    program: Program, change: Callable[[Parts], None], said: str
) -> None:
    parts = make_parts(model=random_model(program, POOL, type=GGMLType.Q8_0))
    change(parts)
    with pytest.raises(ValueError, match=said):
        parts.build()
