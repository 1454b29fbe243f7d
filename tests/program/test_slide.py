"""Programs whose context slides: against the reference, against the plain program, and alone."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from octavo.batch import Asked, Want, make_batch
from octavo.kernels import native
from octavo.model import llama
from octavo.program.builder import ProgramBuilder
from octavo.program.ops import Attend, KVSpec, Rope, WeightSpec
from octavo.program.reference import ReferenceInterpreter
from octavo.program.slide import slide, why_not_sliding
from octavo.weights.ggml_type import GGMLType
from tests.exactness.programs import Grouped, build, windowed
from tests.program.parts import batch_of, make_parts, output_of
from tests.tiny import TINY, TinyModel, make_runner, random_model

POOL = native.ThreadPool(2)
VOCAB = 300
TOKENS = np.random.default_rng(7).integers(0, VOCAB, 700).tolist()
GROUPS = KVSpec(2, 32, 64), windowed(20), KVSpec(1, 48, 32)
SHAPE = Grouped(GROUPS, 4, VOCAB, queries=3)
SLIDING = [(64, 32), (96, 16), (300, 32), (420, 320), (96, 0)]  # a context, and its sinks
every_context = pytest.mark.parametrize(("context", "sinks"), SLIDING)


def model_of(context: int, sinks: int, shape: Grouped = SHAPE) -> TinyModel:
    return random_model(slide(build(shape), context, sinks), POOL, type=GGMLType.F32)


def logits(
    model: TinyModel, cuts: list[int], kv_dtype: str = "f32", **options: Any
) -> NDArray[np.float32]:
    """Of one sequence, by `cuts` in steps."""
    runner = make_runner(model, POOL, num_blocks=64, max_rows=700, kv_dtype=kv_dtype, **options)
    table, out = [[range(40)]] * len(runner.groups), []
    for begin, end in zip([0, *cuts], [*cuts, len(TOKENS)], strict=True):
        asked = [Asked(Want.LOGITS)] * (end - begin)
        batch = make_batch([(TOKENS[begin:end], begin)], table, range(end - begin), asked)
        out.append(runner.run(batch).logits)
    return np.concatenate(out)


@every_context
@pytest.mark.parametrize("fuse", [True, False])
def test_rows_equal_the_reference(context: int, sinks: int, fuse: bool) -> None:
    model = model_of(context, sinks)
    got = logits(model, [], fuse=fuse)
    reference = ReferenceInterpreter(model.program, model.exact, num_blocks=64)
    asked = [Asked(Want.LOGITS)] * len(TOKENS)
    want = reference.run(make_batch([(TOKENS, 0)], [[range(40)]] * 3, range(700), asked)).logits
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-4 * np.abs(want).max())


@every_context
@pytest.mark.parametrize("kv_dtype", ["f32", "bf16", "int8", "k=int8,v=bf16"])
def test_up_to_the_contexts_end_rows_are_those_of_the_plain_program(
    context: int, sinks: int, kv_dtype: str
) -> None:
    plain = random_model(build(SHAPE), POOL, type=GGMLType.F32)
    got, want = logits(model_of(context, sinks), [], kv_dtype), logits(plain, [], kv_dtype)
    assert np.array_equal(got[:context], want[:context])
    assert not np.array_equal(got[context:], want[context:])


@every_context
def test_bits_do_not_depend_on_chunks_nor_on_who_turns_the_rows(context: int, sinks: int) -> None:
    model = model_of(context, sinks)
    whole = logits(model, [])
    cuts = [context - 1, context, context + 1, context + 9, 500, 690, 691, 692]
    assert np.array_equal(logits(model, sorted({50, *cuts})), whole)
    # Rows of the tables are those of the step, not those of all positions.
    got = logits(model, sorted({50, *cuts}), sliding_context=context // 32 * 32, sinks=0)
    assert np.array_equal(got, whole)


def test_far_queries_are_turned_as_the_last_of_the_context_at_most() -> None:
    program = slide(build(SHAPE), 96, 32)
    assert [(s.window, s.beginning) for s in program.groups] == [(64, 32), (20, 0), (64, 32)]
    attends = [op for op in program.ops if isinstance(op, Attend)]
    assert [op.far_q is not None for op in attends] == [True, False, True, True]
    turned = {op.out.id: op for op in program.ops if isinstance(op, Rope)}
    for op in attends:
        if op.far_q is not None:
            near, far = turned[op.q.id], turned[op.far_q.id]
            assert far.x == near.x
            assert program.rope_tables[far.rope_table].last == 95
            assert program.rope_tables[near.rope_table].last is None
    assert not any(op.far_q for op in slide(build(SHAPE), 96, 0).ops if isinstance(op, Attend))


def test_queries_that_are_not_turned_meet_the_beginning_as_they_are() -> None:
    shape = Grouped(GROUPS[:1], 1, VOCAB, turned=False)
    (attend,) = [op for op in slide(build(shape), 96, 32).ops if isinstance(op, Attend)]
    assert attend.far_q == attend.q
    assert np.isfinite(logits(model_of(96, 32, shape), [400])).all()


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        (Grouped(GROUPS, 4, VOCAB, varied=True), "its positions are learned"),
        (Grouped((windowed(20),), 4, VOCAB), "all of its layers have a window of their own"),
    ],
)
def test_programs_that_cannot_slide(shape: Grouped, why: str) -> None:
    assert (why_not_sliding(build(shape)) or "").startswith(why)
    assert why_not_sliding(build(SHAPE)) is None


def test_queries_that_are_scaled_by_position_do_not_slide() -> None:
    p = ProgramBuilder(rope_frequencies=[1.0])
    h = p.embed(WeightSpec("table", (VOCAB, 64)))
    q = p.scale_by_position(p.rope(h, heads=2, style="half"), 0.1, 64)
    h = p.attention(q, h, h, heads=2, group=p.kv_group(KVSpec(2, 32, 32)), scale=0.2)
    program = p.logits(h, WeightSpec("table", (VOCAB, 64)))
    assert (why_not_sliding(program) or "").startswith("it scales queries")


def test_the_core_refuses_a_beginning_without_a_window_or_a_q_for_it() -> None:
    parts = make_parts()
    parts.beginning = 32
    message = "groups beginning, beside a window: expected 0 to 0, got 32"
    with pytest.raises(ValueError, match=message):
        parts.build()
    parts.window = 40
    with pytest.raises(ValueError, match=re.escape(".y")):
        parts.build()


def test_a_beginning_whose_blocks_are_missing_is_refused() -> None:
    model = model_of(96, 32)
    runner = make_runner(model, POOL, num_blocks=64, max_rows=64)
    asked = [Asked(Want.LOGITS)]
    batch = make_batch([(TOKENS[600:601], 600)], [[range(20)]] * 3, [0], asked)
    batch.block_tables[0, 0, 1:16] = -1  # between: nobody looks
    runner.run(batch)
    batch.block_tables[0, 0, 0] = -1
    with pytest.raises(ValueError, match=r"block_tables: expected 0 to \d+, got -1"):
        runner.run(batch)


def test_tables_of_rows_have_as_many_as_a_step_may_have() -> None:
    parts = make_parts()
    parts.rope_by_row = True
    with pytest.raises(ValueError, match="rope_tables cos positions: expected 64, got 256"):
        parts.build()
    parts.cos, parts.sin = parts.cos[:64].copy(), parts.sin[:64].copy()
    by_row, by_position = parts.build(), make_parts().build()
    batch = batch_of([5, 6, 7, 8])  # rows 0 to 3, at positions 0 to 3
    got, want = output_of(batch), output_of(batch)
    by_row.run(batch, got)
    by_position.run(batch, want)
    assert np.array_equal(got.logits, want.logits)


def test_a_llama_slides_too() -> None:
    program = slide(llama.build(TINY), 64, 32)
    (spec,) = program.groups
    assert spec == KVSpec(2, 32, 32, window=32, beginning=32, slides=True)
    assert (spec.most_seen, spec.is_full) == (64, True)
