"""Learned positions and values scaled by their position, in whole programs."""

from __future__ import annotations

import re

import numpy as np
import pytest

from octavo.batch import Asked, Want, make_batch
from octavo.kernels import KV_FORMATS, native
from octavo.program.builder import ProgramBuilder
from octavo.program.cost import Work, cost, uniform_weights
from octavo.program.kv_bytes import PageFormats
from octavo.program.ops import KVSpec, ScaleByPosition, Value, WeightSpec
from octavo.program.program import Program
from octavo.weights.ggml_type import GGMLType
from tests.program.one_sequence import check_near, reference_logits, tokens_of
from tests.program.parts import make_parts
from tests.tiny import all_logits, make_runner, random_model

POOL = native.ThreadPool(2)
TOKENS = tokens_of(300)


def learned(*, offset: int = 2, rows: int = 90, none: bool = False, apart: bool = False) -> Program:
    """Attention over rows that know where they are by a table alone; `apart` is of another width
    than the rows of tokens."""
    p = ProgramBuilder()
    group = p.kv_group(KVSpec(2, 32, 32))
    table = None if none else WeightSpec("positions", (rows, 64))
    if apart:
        tokens = p.embed(WeightSpec("table", (300, 32)))
        at = None if table is None else p.embed(None, positions=table, offset=offset)
        h = p.linear(tokens, WeightSpec("wider", (64, 32)), add=at)
    else:
        h = p.embed(WeightSpec("table", (300, 64)), positions=table, offset=0 if none else offset)

    def linear(x: Value, name: str, add: Value | None = None) -> Value:
        return p.linear(x, WeightSpec(name, (64, 64)), add=add)

    q, k, v = (linear(h, name) for name in "qkv")
    a = p.attention(q, k, v, heads=2, group=group, scale=0.2)
    return p.logits(linear(a, "o", add=h), WeightSpec("head", (300, 64)))


def by_position(beta: float = 0.3, original: int = 16) -> Program:
    """Queries that grow with the position after they have turned."""
    p = ProgramBuilder(rope_frequencies=(1.0, 0.1, 0.01, 0.001))
    group = p.kv_group(KVSpec(2, 32, 32))
    h = p.embed(WeightSpec("table", (300, 64)))
    q, k, v = (p.linear(h, WeightSpec(name, (64, 64))) for name in "qkv")
    q, k = (p.rope(one, heads=2, style="half") for one in (q, k))
    q = p.scale_by_position(q, beta, original)
    a = p.attention(q, k, v, heads=2, group=group, scale=0.2)
    return p.logits(p.linear(a, WeightSpec("o", (64, 64)), add=h), WeightSpec("head", (300, 64)))


@pytest.mark.parametrize("type", [GGMLType.Q4_1, GGMLType.F32])
def test_values_scaled_by_position_equal_the_reference(type: GGMLType) -> None:
    model = random_model(by_position(), POOL, type=type)
    runner = make_runner(model, POOL, kv_dtype="f32")
    got = all_logits(runner, TOKENS)
    assert np.array_equal(got, all_logits(runner, TOKENS, [1, 2, 40]))
    unfused = make_runner(model, POOL, kv_dtype="f32", fuse=False)
    assert np.array_equal(got, all_logits(unfused, TOKENS))
    if type is GGMLType.F32:
        want = reference_logits(model.program, model.exact, TOKENS)
        check_near(got, want)
        changed = reference_logits(by_position(beta=0.0), model.exact, TOKENS)
        assert np.array_equal(changed[:16], want[:16])
        assert np.abs(changed[16:] - want[16:]).max() > 1e-3 * np.abs(want).max()


def test_a_value_scaled_by_position_costs_a_product() -> None:
    program, bf16 = by_position(), KV_FORMATS["bf16"]
    weights = uniform_weights(program, 32)
    costs = cost(program, Work(3), weight_bytes=weights, formats=PageFormats.everywhere(bf16))
    (one,) = (c for op, c in zip(program.ops, costs, strict=True) if type(op) is ScaleByPosition)
    assert (one.op_class, one.flops, one.activation_bytes) == ("qkv", 3 * 64, 3 * 2 * 64 * 4)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("offset", [0, 2])
def test_learned_positions_equal_the_reference(offset: int, apart: bool) -> None:
    model = random_model(learned(offset=offset, apart=apart), POOL, type=GGMLType.F32)
    want = reference_logits(model.program, model.exact, TOKENS)
    check_near(all_logits(make_runner(model, POOL, kv_dtype="f32"), TOKENS), want)
    for plain in (learned(offset=offset + 1, apart=apart), learned(none=True, apart=apart)):
        changed = reference_logits(plain, model.exact, TOKENS)
        assert np.abs(changed - want).max() > 1e-2 * np.abs(want).max()


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("type", [GGMLType.Q4_1, GGMLType.BF16, GGMLType.F32])
def test_chunks_and_fusing_change_no_bit(type: GGMLType, apart: bool) -> None:
    model = random_model(learned(apart=apart), POOL, type=type)
    runner = make_runner(model, POOL)
    assert runner.op_names.count("QKV") == 1
    got = all_logits(runner, TOKENS)
    assert np.isfinite(got).all()
    assert np.array_equal(got, all_logits(runner, TOKENS, [1, 2, 40]))
    assert np.array_equal(got, all_logits(make_runner(model, POOL, fuse=False), TOKENS))


@pytest.mark.parametrize("apart", [False, True])
def test_a_position_without_a_row_is_refused(apart: bool) -> None:
    program = learned(rows=72, apart=apart)
    runner = make_runner(random_model(program, POOL, type=GGMLType.F32), POOL)
    batch = make_batch([(TOKENS[:1], 69)], [[list(range(64))]], [0], [Asked(Want.ARGMAX)])
    runner.run(batch)
    batch = make_batch([(TOKENS[:1], 70)], [[list(range(64))]], [0], [Asked(Want.ARGMAX)])
    with pytest.raises(ValueError, match=re.escape("positions: expected 0 to 69, got 70")):
        runner.run(batch)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("offset", -1, "offset: expected 0 to 1099, got -1"),
        ("offset", 1100, "offset: expected 0 to 1099, got 1100"),
        ("matrix", [0, 99, -1], "matrix: expected 0 to"),
        ("matrix", [-1, 0, -1], "first op's matrix: expected 0 to"),
        ("matrix", [-1, -1, -1], "op 0.matrix: expected 0 to"),
    ],
)
def test_a_table_of_positions_that_does_not_fit_is_refused(
    field: str, value: int | list[int], message: str
) -> None:
    parts = make_parts()
    parts.records["matrix"][0], parts.records["offset"][0] = [0, 0, -1], 0
    parts.build()
    parts.records[field][0] = value
    with pytest.raises(ValueError, match=re.escape(message)):
        parts.build()


def test_a_learned_position_costs_a_row_and_its_sum() -> None:
    bf16 = KV_FORMATS["bf16"]

    def first(program: Program) -> tuple[float, float]:
        weights = uniform_weights(program, 32)
        one = cost(program, Work(3), weight_bytes=weights, formats=PageFormats.everywhere(bf16))[0]
        assert one.activation_bytes == 3 * 64 * 4
        return one.flops, one.weight_bytes

    assert first(learned()) == (3 * 64, 3 * 2 * 64 * 4)
    assert first(learned(none=True)) == (0, 3 * 64 * 4)
