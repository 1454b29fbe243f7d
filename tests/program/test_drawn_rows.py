"""What the head draws is what `sample` draws from the same row of logits, bit for bit: at every
temperature, of every head, on every level, in any company and on any threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from octavo.batch import EDIT, Asked, Batch, StepOutput, Want
from octavo.engine.runner import Runner
from octavo.kernels import available_isas, default_isa, native
from octavo.program.builder import ProgramBuilder
from octavo.program.ops import KVSpec, WeightSpec
from octavo.program.program import Program
from octavo.program.reference import ReferenceInterpreter, edit_logits
from octavo.weights.ggml_type import GGMLType
from tests.kernels import rows_twin as twin
from tests.program.one_sequence import batch_of, tokens_of
from tests.tiny import make_runner, random_model

POOLS = {n: native.ThreadPool(n) for n in (1, 2, 3)}
VOCAB = 2100  # three vocabulary tiles
TOKENS = tokens_of(300)
TEMPERATURES = (1e-38, 0.05, 0.7, 1.0, 1.5, 100.0)
ROWS = range(3, 3 + 4 * len(TEMPERATURES))
PLACES = (0.0, *np.random.default_rng(2).random(len(ROWS) - 2), float(np.nextafter(1, 0)))
DRAWS = [(TEMPERATURES[i % len(TEMPERATURES)], float(u)) for i, u in enumerate(PLACES)]
HEADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cap": {"softcap": 2.0},
    "padded": {"tokens": 1050},
    "all": {"scale": -0.5, "softcap": 3.0, "tokens": 2049},
}


def headed(rows: int = VOCAB, **head: Any) -> Program:
    p = ProgramBuilder()
    h = p.embed(WeightSpec("table", (300, 64)))
    h = p.attention(h, h, h, heads=2, group=p.kv_group(KVSpec(2, 32, 32)), scale=0.2)
    x = p.layer_norm(h, WeightSpec("norm", (64,)), WeightSpec("norm.bias", (64,)), 1e-5)
    return p.logits(x, WeightSpec("head", (rows, 64)), bias=WeightSpec("b", (rows,)), **head)


def runner_of(head: str, threads: int = 2, type: GGMLType = GGMLType.Q8_0) -> Runner:
    pool = POOLS[threads]
    return make_runner(random_model(headed(**HEADS[head]), pool, type=type), pool)


def changes(edited: bool, masked: bool) -> dict[str, Any]:
    """Edits and masks of each row, if there are to be any."""
    rng = np.random.default_rng(3)
    found: dict[str, Any] = {}
    if edited:
        edits = np.zeros(9 * len(ROWS), EDIT)
        each = [np.sort(rng.choice(1050, 9, replace=False)) for _ in ROWS]
        edits["token"] = np.concatenate(each)
        edits["scale"], edits["add"] = 1.5, rng.normal(0, 20, len(edits))
        starts = np.arange(len(ROWS) + 1, dtype=np.int32) * 9
        found = {"edits": edits, "edit_starts": starts}
    if masked:
        words = (len(ROWS), -(-VOCAB // 32))
        found["masks"] = rng.integers(0, 2**32, words, dtype=np.uint32)
    return found


def drawn_batch(rows: Sequence[int] = ROWS, **more: Any) -> Batch:
    draws = [DRAWS[row - ROWS[0]] for row in rows]
    batch = batch_of(TOKENS, rows, [Asked(Want.DRAW, temperature=t) for t, _ in draws])
    return replace(batch, uniforms=np.array([u for _, u in draws]), **more)


def logits_of(runner: Runner, batch: Batch) -> StepOutput:
    return runner.run(replace(batch, wants=np.full(len(ROWS), Want.LOGITS, np.int32)))


@pytest.mark.parametrize("isa", available_isas())
@pytest.mark.parametrize("type", [GGMLType.Q4_1, GGMLType.Q8_0, GGMLType.BF16, GGMLType.F32])
@pytest.mark.parametrize("head", HEADS)
def test_the_head_draws_what_sample_draws(
    head: str, type: GGMLType, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octavo.engine.runner.default_isa", lambda: isa)
    runner = runner_of(head, type=type)
    scratch = np.empty(native.sample_scratch(VOCAB), np.uint64)
    size, seen = runner.vocab_size, set()
    for edited, masked in ((False, False), (True, False), (False, True), (True, True)):
        batch = drawn_batch(**changes(edited, masked))
        got, whole = runner.run(batch), logits_of(runner, batch)
        rows = edit_logits(whole.logits, batch)[:, :size]
        want = [
            native.sample(isa, np.ascontiguousarray(row), t, 0, 1.0, 0.0, u, scratch)
            for row, (t, u) in zip(rows, DRAWS, strict=True)
        ]
        assert want == [
            twin.sample(isa, row, t, 0, 1.0, 0.0, u)
            for row, (t, u) in zip(rows, DRAWS, strict=True)
        ]
        assert got.drawn.tolist() == want
        assert np.array_equal(got.drawn_logits, whole.logits[range(len(ROWS)), want])
        assert np.array_equal(got.log_sum_exp, whole.log_sum_exp)
        assert np.array_equal(got.argmax, whole.argmax)
        seen.update(want)
    assert len(seen) > len(ROWS)
    assert size - 200 < max(seen) < size


@pytest.mark.parametrize("edited", [False, True])
def test_bits_do_not_depend_on_threads_company_or_what_was_drawn_before(edited: bool) -> None:
    change = changes(edited, masked=False)
    want = runner_of("all", 1).run(drawn_batch(**change))
    kinds = [Want.DRAW, Want.TOP_K, Want.LOGITS, Want.HIDDEN, Want.DRAW, Want.ARGMAX]
    wants = np.array([kinds[i % len(kinds)] for i in range(len(ROWS))], np.int32)
    for threads in (1, 2, 3):
        runner = runner_of("all", threads)
        mixed = runner.run(drawn_batch(**change, wants=wants, top_k=5))
        at = np.flatnonzero(wants == Want.DRAW)
        assert np.array_equal(mixed.drawn, want.drawn[at])
        assert np.array_equal(mixed.drawn_logits, want.drawn_logits[at])
        again = runner.run(drawn_batch(**change))
        assert np.array_equal(again.drawn, want.drawn)
        for i in (0, 7, len(ROWS) - 1):
            alone = drawn_batch([ROWS[i]])
            if edited:
                edits = change["edits"][9 * i : 9 * i + 9]
                alone = replace(alone, edits=edits, edit_starts=np.array([0, 9], np.int32))
            assert runner.run(alone).drawn.tolist() == [want.drawn[i]]


@pytest.mark.parametrize("head", HEADS)
def test_the_reference_draws_the_same(head: str) -> None:
    model = random_model(headed(**HEADS[head]), POOLS[2], type=GGMLType.F32)
    reference = ReferenceInterpreter(model.program, model.exact, num_blocks=64)
    runner = make_runner(model, POOLS[2], kv_dtype="f32")
    for masked in (False, True):
        batch = drawn_batch(**changes(True, masked))
        got, want = runner.run(batch), reference.run(batch)
        near = np.isclose(got.drawn_logits, want.drawn_logits, rtol=0, atol=1e-3)
        same = got.drawn == want.drawn
        assert (same <= near).all()
        assert same.sum() >= len(ROWS) - 2  # float32 in another order may draw a neighbour


def test_more_tokens_than_two_to_the_18th_are_drawn_from() -> None:
    """As of Gemma 3 with images: a token beyond the last whole tile, which is the likeliest."""
    program = headed(262_208, tokens=262_145)
    model = random_model(program, POOLS[2], type=GGMLType.F32)
    model.exact["b"][262_144] = 30  # the core's too: one array
    runner = make_runner(model, POOLS[2])
    batch = drawn_batch()
    got, whole = runner.run(batch), logits_of(runner, batch)
    isa, scratch = default_isa(), np.empty(native.sample_scratch(262_145), np.uint64)
    for filters in ((0, 1.0), (50, 0.9)):
        drawn = [
            native.sample(isa, row[:262_145].copy(), t, *filters, 0.0, u, scratch)
            for row, (t, u) in zip(whole.logits, DRAWS, strict=True)
        ]
        assert 262_144 in drawn
        assert filters[0] or got.drawn.tolist() == drawn
    assert got.argmax.tolist() == [262_144] * len(ROWS)


def test_where_nothing_is_allowed_nothing_is_drawn() -> None:
    masks = np.full((len(ROWS), -(-VOCAB // 32)), 0xFFFFFFFF, np.uint32)
    masks[1] = 0
    got = runner_of("plain").run(drawn_batch(masks=masks))
    assert [i for i, token in enumerate(got.drawn) if token < 0] == [1]
    assert np.flatnonzero(np.isnan(got.drawn_logits)).tolist() == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperatures": None}, "temperatures and uniforms: expected where DRAW is wanted"),
        ({"uniforms": None}, "temperatures and uniforms: expected where DRAW is wanted"),
        ({"temperatures": [1, 1]}, "temperatures: expected 3, got 2"),
        ({"uniforms": [0, 0]}, "uniforms: expected 3, got 2"),
        ({"temperatures": [1, 0, 1]}, "temperatures: expected more than 0, and finite, got 0"),
        ({"temperatures": [1, np.inf, 1]}, "temperatures: expected more than 0, and finite, got"),
        ({"temperatures": [1, np.nan, 1]}, "temperatures: expected more than 0, and finite, got"),
        ({"uniforms": [0, 1, 0]}, "uniforms: expected 0 to 1, less than 1, got 1"),
        ({"uniforms": [0, -0.5, 0]}, "uniforms: expected 0 to 1, less than 1, got -0.5"),
    ],
)
def test_draws_out_of_range_never_run(change: dict[str, Any], message: str) -> None:
    drawn = Asked(Want.DRAW, temperature=1.0)
    batch = batch_of(TOKENS, [0, 1, 2], [Want.ARGMAX, drawn, Want.ARGMAX])
    batch = replace(batch, uniforms=np.array([0, 0.5, 0]))
    kinds = {"temperatures": np.float32, "uniforms": np.float64}
    arrays: dict[str, Any] = {
        name: None if v is None else np.array(v, kinds[name]) for name, v in change.items()
    }
    with pytest.raises(ValueError, match=message):
        runner_of("plain").run(replace(batch, **arrays))
    assert runner_of("plain").run(batch).drawn.size == 1  # what is not drawn is not looked at
