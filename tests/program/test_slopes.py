"""Slopes of heads: what they are, and programs that have some."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest

from octavo.kernels import native
from octavo.program.fused_ops import AttendQuantize
from octavo.program.ops import Attend, KVSpec
from octavo.program.program import Program
from octavo.program.slopes import Slopes, alibi_slopes
from octavo.weights.ggml_type import GGMLType
from tests.exactness.programs import Grouped, build, windowed
from tests.program.one_sequence import check_near, reference_logits
from tests.program.parts import make_parts
from tests.tiny import all_logits, make_runner, random_model

POOL = native.ThreadPool(2)
VOCAB = 40
SHAPE = Grouped((KVSpec(1, 32, 32), windowed(100)), 2, VOCAB, queries=6, turned=False)
TOKENS = [int(t) for t in np.random.default_rng(2).integers(0, VOCAB, 330)]


def test_slopes_of_as_many_heads_as_a_power_of_two_has() -> None:
    assert alibi_slopes(8) == tuple(0.5**i for i in range(1, 9))
    assert alibi_slopes(1) == (2.0**-8,)
    assert alibi_slopes(4, bias_max=4) == (0.5, 0.25, 0.125, 0.0625)


def test_other_numbers_of_heads_are_filled_up_from_twice_as_many() -> None:
    assert alibi_slopes(3) == (2**-4, 2**-8, 2**-2)
    assert alibi_slopes(6) == (2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3)
    assert alibi_slopes(6, bias_max=16) == (2**-4, 2**-8, 2**-12, 2**-16, 2**-2, 2**-6)


def test_slopes_are_those_that_mpt_takes_of_the_power_above() -> None:
    """Every other one of eight from the second, then those between."""
    eight = [2.0 ** (-6.5 * i / 8) for i in range(1, 9)]
    assert np.allclose(alibi_slopes(7, bias_max=6.5), (eight[1::2] + eight[::2])[:7], rtol=1e-15)


def test_biases_are_by_distance_or_rounded_by_key() -> None:
    keys = np.array([0, 100, 257, 259, 300], np.int32)
    assert Slopes((0.5, 0.25)).biases(1, keys, 300, 9.0).tolist() == [-75, -50, -10.75, -10.25, 0]
    # Of eight bits: 0.3 is 0.30078125, 257 is 256 and 259 is 260; products are 30.125, 77, 78, 90.
    rounded = Slopes((0.3,), rounded=True).biases(0, keys, 300, 2.0)
    assert rounded.tolist() == [-180, -119.75, -26, -24, 0]


def with_slopes(program: Program, slopes: Slopes | None) -> Program:
    ops = [replace(op, slopes=slopes) if isinstance(op, Attend) else op for op in program.ops]
    return replace(program, ops=tuple(ops))


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("kind", ["plain", "rounded"])
def test_native_equals_the_reference(kind: Literal["plain", "rounded"], fuse: bool) -> None:
    model = random_model(build(replace(SHAPE, slopes=kind)), POOL, type=GGMLType.F32)
    runner = make_runner(model, POOL, kv_dtype="f32", fuse=fuse, num_blocks=64, max_rows=400)
    assert (AttendQuantize.__name__ in runner.op_names) == fuse
    got = all_logits(runner, TOKENS)
    check_near(got, reference_logits(model.program, model.exact, TOKENS))
    plain = reference_logits(with_slopes(model.program, None), model.exact, TOKENS)
    assert np.abs(got - plain).max() > 0.1 * np.abs(plain).max()


@pytest.mark.parametrize("kv", ["f32", "bf16", "int8", "int4"])
def test_slopes_of_zero_are_as_none(kv: str) -> None:
    model = random_model(build(SHAPE), POOL, type=GGMLType.Q8_0)
    room: dict[str, Any] = {"kv_dtype": kv, "num_blocks": 64, "max_rows": 400}
    want = all_logits(make_runner(model, POOL, **room), TOKENS)
    for rounded in (False, True):
        still = with_slopes(model.program, Slopes((0.0,) * 6, rounded))
        runner = make_runner(replace(model, program=still), POOL, **room)
        assert np.array_equal(all_logits(runner, TOKENS, [7, 256, 300]), want)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"index": 1}, "slopes: expected 0 to 0, got 1"),
        ({"index": -2}, "slopes: expected 0 to 0, got -2"),
        ({"slopes": np.zeros(5, np.float32)}, "slopes of heads: expected 6, got 5"),
        ({"slopes": np.full(6, np.inf, np.float32)}, "slopes: expected numbers between -1e6"),
    ],
)
def test_slopes_that_are_not_there_or_of_other_heads_are_refused(
    change: dict[str, object], message: str
) -> None:
    shape = Grouped((KVSpec(1, 32, 32),), 1, VOCAB, queries=6, slopes="plain")
    parts = make_parts(model=random_model(build(shape), POOL, type=GGMLType.Q8_0))
    parts.build()
    at = parts.ops.index("AttendQuantize")
    parts.records["slopes"][at] = change.get("index", 0)
    if "slopes" in change:
        parts.slopes = [(change["slopes"], False)]  # type: ignore[list-item]
    with pytest.raises(ValueError, match=re.escape(message)):
        parts.build()
