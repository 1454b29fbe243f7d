"""Attention of the native interpreter over many shapes of heads, windows and softcaps, against the
reference."""

from __future__ import annotations

import numpy as np
import pytest

from octavo.errors import UnsupportedModelError
from octavo.kernels import native
from octavo.program.fuse import RowKind, fuse
from octavo.program.fused_ops import AttendQuantize
from octavo.program.ops import KVSpec
from octavo.weights.ggml_type import GGMLType
from tests.exactness.programs import Grouped, grouped
from tests.program.one_sequence import check_near, reference_logits, tokens_of
from tests.tiny import all_logits, make_runner, random_model

POOL = native.ThreadPool(2)
VOCAB = 300
TOKENS = tokens_of(VOCAB)
GROUPS = KVSpec(1, 32, 32, window=20), KVSpec(1, 32, 32)


@pytest.mark.parametrize("softcap", [0.0, 0.5, 50.0])
def test_windows_and_softcap_equal_the_reference(softcap: float) -> None:
    program = grouped(Grouped(GROUPS, 2, VOCAB, softcap=softcap))
    model = random_model(program, POOL, type=GGMLType.F32)
    got = all_logits(make_runner(model, POOL, kv_dtype="f32"), TOKENS)
    check_near(got, reference_logits(program, model.exact, TOKENS))


@pytest.mark.parametrize("queries", [1, 7, 16, 17, 48, 71, 128])
def test_any_number_of_query_heads_equals_the_reference(queries: int) -> None:
    program = grouped(Grouped(GROUPS, 2, VOCAB, queries=queries, softcap=5.0))
    model = random_model(program, POOL, type=GGMLType.F32)
    for fuse_ops in (True, False):
        got = all_logits(make_runner(model, POOL, kv_dtype="f32", fuse=fuse_ops), TOKENS)
        check_near(got, reference_logits(program, model.exact, TOKENS))


def test_more_query_heads_than_a_kernel_takes_are_refused() -> None:
    model = random_model(grouped(Grouped(GROUPS, 2, VOCAB, queries=129)), POOL, type=GGMLType.F32)
    with pytest.raises(UnsupportedModelError, match=r"KV head: expected at most 128, got 129"):
        make_runner(model, POOL)


def test_a_softcap_shows() -> None:
    none, some = (grouped(Grouped(GROUPS, 2, VOCAB, softcap=softcap)) for softcap in (0.0, 0.5))
    model = random_model(none, POOL, type=GGMLType.F32)
    plain, capped = (reference_logits(p, model.exact, TOKENS) for p in (none, some))
    assert np.abs(plain - capped).max() > 1e-2 * np.abs(plain).max()


def test_fusing_keeps_the_softcap() -> None:
    program = grouped(Grouped(GROUPS, 2, VOCAB, softcap=50.0))
    kinds: dict[str, RowKind] = dict.fromkeys(program.weights(), "af32")
    fused = [op for op in fuse(program, kinds).ops if isinstance(op, AttendQuantize)]
    assert [op.softcap for op in fused] == [50.0, 50.0]


@pytest.mark.parametrize("type", [GGMLType.Q4_1, GGMLType.F32])
def test_a_softcap_fused_is_unfused_bit_for_bit(type: GGMLType) -> None:
    model = random_model(grouped(Grouped(GROUPS, 2, VOCAB, softcap=0.5)), POOL, type=type)
    fused, unfused = (all_logits(make_runner(model, POOL, fuse=f), TOKENS) for f in (True, False))
    assert np.isfinite(fused).all()
    assert np.array_equal(fused, unfused)
