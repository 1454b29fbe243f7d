"""Which rows of a plan reach the head, what each asks for, and whose output is whose."""

from __future__ import annotations

import numpy as np

from octavo.batch import StepOutput, Want
from octavo.request import TokenLogprobs
from tests.engine.driven import Driven, text

VOCAB = 64
NOTED = TokenLogprobs(0, 0.0, ())


def test_a_sequence_that_caught_up_has_its_last_row_sampled() -> None:
    it = Driven(32, max_rows=16)
    it.add(text(0, 3), n=2)
    it.step()
    it.add(text(1, 5))
    it.add(text(2, 20))
    plan = it.plan()
    assert list(plan.spans.values()) == [(3, 4), (3, 4), (0, 5), (0, 9)]
    assert [(r.row, r.position, r.asked.want, r.samples) for r in plan.head_rows] == [
        (0, 3, Want.ARGMAX, True),
        (1, 3, Want.ARGMAX, True),
        (6, 4, Want.ARGMAX, True),  # the last has 11 to go
    ]
    batch = plan.batch
    assert batch.output_rows.tolist() == [0, 1, 6]
    assert batch.row_starts.tolist() == [0, 1, 2, 7, 16]
    assert batch.positions.tolist() == [3, 3, 0, 1, 2, 3, 4, *range(9)]
    assert batch.write_starts.tolist() == [3, 3, 0, 0]
    assert (batch.edits, batch.edit_starts) == (None, None)
    assert batch.block_tables.shape == (1, 4, 3)


def test_a_prompt_whose_log_probabilities_are_wanted_gives_every_row_but_the_last() -> None:
    it = Driven(32, max_rows=8)
    request = it.add(text(1, 11), prompt_logprobs=0)
    plan = it.plan()
    rows = plan.head_rows
    assert [(r.row, r.position, r.samples) for r in rows] == [(i, i, False) for i in range(8)]
    assert {r.asked.want for r in rows} == {Want.LOGITS}
    request.row_values += [NOTED] * 8
    it.run(plan)
    plan = it.plan()
    assert [(r.row, r.position, r.samples) for r in plan.head_rows] == [
        (0, 8, False), (1, 9, False), (2, 10, True),
    ]  # fmt: skip
    request.row_values += [NOTED] * 2
    it.run(plan)
    assert [r.position for r in it.plan().head_rows] == [11]


def test_edits_of_each_row_are_found_by_where_they_start() -> None:
    it = Driven(32, max_rows=32)
    it.add([5, 9], repetition_penalty=2.0)
    it.add(text(1, 3))
    it.add([3], repetition_penalty=1.5)
    plan = it.plan()
    batch = plan.batch
    assert batch.edit_starts.tolist() == [0, 2, 2, 3]
    assert batch.edits["token"].tolist() == [5, 9, 3]
    assert batch.edits["scale"].tolist() == [2.0, 2.0, 1.5]


def test_outputs_find_their_logits_and_candidates() -> None:
    it = Driven(32, max_rows=32)
    it.add(text(0, 2))
    it.add(text(1, 2), beam_width=2)
    it.add(text(2, 2), logprobs=0)
    it.add(text(3, 2), logprobs=0)
    plan = it.plan()
    assert [r.asked.want for r in plan.head_rows] == [
        Want.ARGMAX,
        Want.TOP_K,
        Want.LOGITS,
        Want.LOGITS,
    ]
    logits = np.arange(2 * VOCAB, dtype=np.float32).reshape(2, VOCAB)
    out = StepOutput(
        argmax=np.array([4, 5, 6, 7], np.int32),
        log_sum_exp=np.array([1, 2, 3, 4], np.float32),
        top_ids=np.array([[0, 0], [8, 9], [0, 0], [0, 0]], np.int32),
        top_logits=np.array([[0, 0], [1.5, 1.25], [0, 0], [0, 0]], np.float32),
        logits=logits,
        hidden=np.zeros((0, 1), np.float32),
    )
    plan.read(out)
    plain, beam, third, fourth = plan.head_rows
    assert (plain.token, plain.log_sum_exp, plain.logits, plain.top) == (4, 1.0, None, ())
    assert beam.top == [(8, -0.5), (9, -0.75)]
    assert (third.logits[0], fourth.logits[0]) == (0, VOCAB)
