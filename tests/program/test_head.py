"""The head's bias, scale, cap and padded vocabulary: as the reference says, whatever is wanted."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from octavo.batch import EDIT, StepOutput, Want
from octavo.kernels import KV_FORMATS, native
from octavo.program.builder import ProgramBuilder
from octavo.program.cost import Work, cost, uniform_weights
from octavo.program.kv_bytes import PageFormats
from octavo.program.ops import Head, KVSpec, WeightSpec
from octavo.program.program import Program
from octavo.program.reference import ReferenceInterpreter
from octavo.weights.ggml_type import GGMLType
from tests.program.one_sequence import batch_of, check_near, reference_logits, tokens_of
from tests.program.parts import make_parts
from tests.tiny import all_logits, make_runner, random_model

POOL = native.ThreadPool(2)
ROWS = 1100  # more than one vocabulary tile
TOKENS = tokens_of(300)
SHAPES: dict[str, dict[str, Any]] = {
    "bias": {"biased": True},
    "scale": {"scale": 0.125},
    "cap": {"softcap": 2.0},
    "all": {"biased": True, "scale": -0.5, "softcap": 3.0, "tokens": 1050},
}


def headed(*, biased: bool = False, rows: int = ROWS, **more: Any) -> Program:
    p = ProgramBuilder()
    h = p.embed(WeightSpec("table", (300, 64)))
    h = p.attention(h, h, h, heads=2, group=p.kv_group(KVSpec(2, 32, 32)), scale=0.2)
    x = p.layer_norm(h, WeightSpec("norm", (64,)), WeightSpec("norm.bias", (64,)), 1e-5)
    bias = WeightSpec("head.bias", (rows,)) if biased else None
    return p.logits(x, WeightSpec("head", (rows, 64)), bias=bias, **more)


@pytest.mark.parametrize("name", SHAPES)
def test_heads_equal_the_reference(name: str) -> None:
    model = random_model(headed(**SHAPES[name]), POOL, type=GGMLType.F32)
    got = all_logits(make_runner(model, POOL, kv_dtype="f32"), TOKENS)
    want = reference_logits(model.program, model.exact, TOKENS)
    check_near(got, want)
    for each in SHAPES[name]:
        shape = {key: value for key, value in SHAPES[name].items() if key != each}
        plain = reference_logits(headed(**shape), model.exact, TOKENS)
        assert each == "tokens" or np.abs(plain - want).max() > 1e-2 * np.abs(want).max()


@pytest.mark.parametrize("type", [GGMLType.Q4_1, GGMLType.BF16, GGMLType.F32])
def test_fused_equals_unfused_bit_for_bit(type: GGMLType) -> None:
    model = random_model(headed(**SHAPES["all"]), POOL, type=type)
    fused = make_runner(model, POOL, fuse=True)
    assert "Norm" not in fused.op_names
    got = all_logits(fused, TOKENS)
    assert got.shape == (len(TOKENS), ROWS)
    assert np.isfinite(got).all()
    assert np.array_equal(got, all_logits(make_runner(model, POOL, fuse=False), TOKENS))
    assert np.array_equal(got, all_logits(fused, TOKENS, [1, 2, 40]))


def outputs(tokens: int | None, bias: dict[int, float], **changes: Any) -> tuple[StepOutput, ...]:
    """What a head of so many tokens gives, from the core and from the reference; `bias` is added to
    some logits."""
    program = headed(biased=True, tokens=tokens)
    model = random_model(program, POOL, type=GGMLType.F32)
    for row, value in bias.items():
        model.exact["head.bias"][row] += value  # the core's too: one array
    batch = batch_of(TOKENS, [3, 20, 69], [Want.TOP_K, Want.ARGMAX, Want.LOGITS], top_k=64)
    batch = replace(batch, **changes)
    reference = ReferenceInterpreter(program, model.exact, num_blocks=64)
    return make_runner(model, POOL, kv_dtype="f32").run(batch), reference.run(batch)


@pytest.mark.parametrize("tokens", [1, 16, 1000, 1024, 1025, 1099])
@pytest.mark.parametrize("edited", [False, True])
def test_what_fills_up_a_vocabulary_is_never_picked(tokens: int, edited: bool) -> None:
    """Though it has the largest logits by far, and edits and masks speak for it."""
    rows = range(tokens, ROWS)
    edits = np.array([(0, 1, 1), *[(row, 1, 100) for row in rows]], EDIT)
    change: dict[str, Any] = {
        "edits": np.tile(edits, 3),
        "edit_starts": np.arange(4, dtype=np.int32) * len(edits),
        "masks": np.full((3, -(-ROWS // 32)), 0xFFFFFFFF, np.uint32),
    }
    got, want = outputs(tokens, dict.fromkeys(rows, 50.0), **(change if edited else {}))
    assert np.array_equal(got.argmax, want.argmax)
    assert got.argmax.max() < tokens
    listed = min(64, tokens)
    assert np.array_equal(got.top_ids[0, :listed], want.top_ids[0, :listed])
    assert (got.top_ids[0, listed:] == -1).all()
    np.testing.assert_allclose(got.log_sum_exp, want.log_sum_exp, rtol=1e-5)
    # all rows are to be seen; and the log-probabilities of the tokens are of one distribution
    check_near(got.logits, want.logits)
    assert got.logits.shape == (1, ROWS)
    sums = np.exp(got.logits[0, :tokens].astype(np.float64) - got.log_sum_exp[2]).sum()
    assert abs(sums - 1) < 1e-5


def test_bits_are_those_of_a_table_that_ends_at_its_tokens() -> None:
    whole = random_model(headed(), POOL, type=GGMLType.F32)
    padded = replace(whole, program=headed(tokens=1040))
    assert (whole.program.vocab_size, padded.program.vocab_size) == (ROWS, 1040)
    batch = batch_of(TOKENS, [3, 20, 69], [Want.TOP_K, Want.ARGMAX, Want.TOP_K], top_k=7)
    masks = np.zeros((3, -(-ROWS // 32)), np.uint32)
    masks.view(np.uint8)[:, : 1040 // 8] = 0xFF
    cut = make_runner(whole, POOL).run(replace(batch, masks=masks))
    got = make_runner(padded, POOL).run(batch)
    for name in ("argmax", "top_ids", "top_logits"):
        at = [1] if name == "argmax" else [0, 2]
        assert np.array_equal(getattr(got, name)[at], getattr(cut, name)[at])


def test_hidden_rows_do_no_work_of_the_vocabulary() -> None:
    wide = random_model(headed(rows=100_000), POOL, type=GGMLType.Q8_0)
    runner = make_runner(wide, POOL, profile=True)
    assert runner.op_names[-1] == "Head"

    def counted(want: Want) -> int:
        batch = batch_of(TOKENS, range(len(TOKENS)), [want] * len(TOKENS))
        return min(int(runner.run(batch).op_ns[-1]) for _ in range(5))

    assert 20 * counted(Want.HIDDEN) < counted(Want.ARGMAX)


def test_what_a_head_does_is_counted() -> None:
    bf16 = KV_FORMATS["bf16"]

    def of(program: Program) -> tuple[float, float]:
        weights = uniform_weights(program, 32)
        costs = cost(program, Work(3), weight_bytes=weights, formats=PageFormats.everywhere(bf16))
        assert isinstance(program.ops[-1], Head)
        return costs[-1].flops, costs[-1].weight_bytes

    assert of(headed()) == (ROWS * 128, ROWS * 64 * 4)
    assert of(headed(**SHAPES["all"])) == (ROWS * (128 + 1 + 1 + 3), ROWS * 65 * 4)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("tokens", 0, "tokens: expected 1 to 1100, got 0"),
        ("tokens", 1101, "tokens: expected 1 to 1100, got 1101"),
        ("vector", [-1, -1, 0, -1, -1], "vector size: expected 1100, got"),
        ("scale", np.inf, "scale: expected a finite number"),
        ("softcap", np.nan, "softcap: expected 0 (none) or a finite number above"),
        ("softcap", -1.0, "softcap: expected 0 (none) or a finite number above"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(
    field: str, value: float | list[int], message: str
) -> None:
    parts = make_parts()
    parts.records[field][-1] = value
    with pytest.raises(ValueError, match=re.escape(message)):
        parts.build()
