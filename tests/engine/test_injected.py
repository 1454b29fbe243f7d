"""A part of a step that raises: its model, its copies, its draws, its blocks. Each just before it
did its work and just after."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.batch import StepOutput
from octavo.engine.engine import Engine
from octavo.engine.step import StepPlan
from octavo.errors import ModelError
from octavo.request import RequestOptions
from octavo.sampling_params import SamplingParams
from octavo.weights.ggml_type import GGMLType
from tests.engine.busy import EOS, MODEL, POOL, TEXT, Busy, answers, is_hurt
from tests.engine.interrupt import fault
from tests.engine.tiny_engine import add, answered, run, tiny_engine
from tests.exactness.programs import Grouped, build, windowed
from tests.tiny import TINY, random_model

PARTS = [
    *("runner.forward", "runner.transfer", "draws.draw", "requests.finish_branch"),
    *("kv.commit", "kv.reserve", "kv.fork", "kv.index.register", "kv.pool._forget"),
    *("kv.pool.allocate", "kv.pool.free"),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("kind", [RuntimeError, MemoryError, KeyboardInterrupt])
def test_a_part_that_raises_costs_at_most_one_request(
    part: str, after: bool, kind: type[BaseException]
) -> None:
    busy, num_raised = Busy(seed=7), 0
    for i in range(30):
        busy.fill()
        with fault(busy.engine, part, kind, nth=1 + i % 4, after=after) as raised:
            try:
                busy.engine.step()
            except kind as caught:
                if caught not in raised:
                    raise
        num_raised += len(raised)
        busy.check(may_hurt=len(raised))
        busy.engine.step()
        busy.check(may_hurt=0)
    busy.drain()
    assert num_raised >= 2
    assert busy.num_right > 3


def poison(engine: Engine, tokens: list[int]) -> None:
    """Make the model fail, from now on, on every batch that holds these tokens."""
    real = engine.runner.forward

    def forward(plan: StepPlan) -> StepOutput:
        if set(tokens) & set(plan.batch.tokens.tolist()):
            raise RuntimeError("injected")
        return real(plan)

    engine.runner.forward = forward  # type: ignore[method-assign]


def test_the_one_request_that_the_model_fails_on_is_found() -> None:
    """Three requests share the step that fails. Each then runs alone: 0 and 2 go on, 1 ends."""
    engine = tiny_engine(MODEL, POOL, step_ms=None)
    requests = [add(engine, [10 + i] * 5, max_tokens=4) for i in range(3)]
    poison(engine, [11])
    result = engine.step()
    assert [s.request for s in result.grown] == [requests[0], requests[2]]
    assert result.finished == [requests[1]]
    engine.check_integrity()
    run(engine)
    assert str(requests[1].error) == "injected"
    assert [r.branches[0].finish_reason for r in requests] == ["length", "error", "length"]
    for i in (0, 2):
        quiet = tiny_engine(MODEL, POOL, step_ms=None)
        same = answered(quiet, [10 + i] * 5, max_tokens=4)
        assert answers(requests[i]) == answers(same)


@pytest.mark.parametrize("count", [1, 3])
def test_an_error_that_no_request_caused_is_raised_and_all_live_on(count: int) -> None:
    """The model fails once. None of the requests fails alone: each got its token meanwhile."""
    engine, quiet = (tiny_engine(MODEL, POOL, step_ms=None) for _ in range(2))
    requests, same = (
        [add(e, [10 + i] * 5, max_tokens=4, temperature=1.0, seed=3) for i in range(count)]
        for e in (engine, quiet)
    )
    with fault(engine, "runner.forward", after=True), pytest.raises(RuntimeError, match="injected"):
        engine.step()
    assert [r.branches[0].num_completion_tokens for r in requests] == [1] * count
    engine.check_integrity()
    assert len(engine.step().grown) == 2 * count  # and those of the step that raised
    run(engine)
    run(quiet)
    assert [answers(r) for r in requests] == [answers(r) for r in same]


def test_an_end_is_told_although_its_step_raised_and_nothing_is_left() -> None:
    engine = tiny_engine(MODEL, POOL, step_ms=None)
    request = add(engine, TEXT[:5], max_tokens=1)
    with fault(engine, "runner.forward", after=True), pytest.raises(RuntimeError, match="injected"):
        engine.step()
    assert request.branches[0].finish_reason == "length"
    assert engine.has_unfinished
    assert engine.step().finished == [request]
    assert not engine.has_unfinished


def test_a_request_alone_in_its_step_is_known_at_once() -> None:
    engine = tiny_engine(MODEL, POOL, step_ms=None)
    request = add(engine, TEXT[:5], max_tokens=4)
    poison(engine, TEXT[:5])
    assert engine.step().finished == [request]
    assert is_hurt(request)
    assert not engine.has_unfinished


def test_a_draw_that_fails_ends_its_request_alone_and_at_once() -> None:
    engine = tiny_engine(MODEL, POOL, step_ms=None, eos_ids=EOS)
    cut: dict[str, Any] = {"max_tokens": 4, "temperature": 1.0, "top_p": 0.9}  # drawn by hand
    bad = add(engine, TEXT[:20], seed=1, **cut)
    good = add(engine, TEXT[20:40], seed=2, **cut)
    with fault(engine, "draws.draw"):
        result = engine.step()
    assert (result.finished, [s.request for s in result.grown]) == ([bad], [good])
    engine.check_integrity()
    run(engine)
    assert good.branches[0].finish_reason in ("stop", "length")


def test_ctrl_c_while_tokens_are_drawn_is_raised_and_harms_none() -> None:
    """Nothing was changed yet: the rows of all run again, and give the same tokens."""
    engine, quiet = (tiny_engine(MODEL, POOL, step_ms=None) for _ in range(2))
    asked: dict[str, Any] = {"max_tokens": 3, "temperature": 1.0, "seed": 3, "n": 2, "logprobs": 1}
    requests, same = ([add(e, TEXT[i : i + 9], **asked) for i in (0, 20)] for e in (engine, quiet))
    run(quiet)
    for nth in (1, 4):
        broken = fault(engine, "draws.draw", KeyboardInterrupt, nth=nth, after=True)
        with broken, pytest.raises(KeyboardInterrupt):
            engine.step()
        engine.check_integrity()
        engine.step()
    run(engine)
    assert [answers(r) for r in requests] == [answers(r) for r in same]


def test_logits_that_are_no_numbers_end_their_request_alone() -> None:
    engine = tiny_engine(MODEL, POOL, step_ms=None)
    bad, good = (add(engine, TEXT[i : i + 9], max_tokens=2) for i in (0, 20))
    real = engine.runner.forward

    def forward(plan: StepPlan) -> StepOutput:
        out = real(plan)
        out.log_sum_exp[0] = float("nan")
        return out

    engine.runner.forward = forward  # type: ignore[method-assign]
    assert engine.step().finished == [bad]
    assert isinstance(bad.error, ModelError)
    assert "not finite" in str(bad.error)
    assert good.branches[0].num_completion_tokens == 1
    engine.runner.forward = real  # type: ignore[method-assign]
    again = add(engine, TEXT[:9], max_tokens=1)
    run(engine)
    assert again.cache.matched_tokens == 0  # nobody finds what it computed


def test_a_request_for_every_row_that_breaks_off_gives_its_blocks_back() -> None:
    engine = tiny_engine(MODEL, POOL, num_blocks=4, max_rows=32)
    params = SamplingParams()
    given_up = engine.add(TEXT, params, RequestOptions(), "logits")
    engine.step()
    assert engine.counts()["kv_blocks_used"] == 1
    engine.finish(given_up, "abort")
    engine.check_integrity()
    request = engine.add(TEXT, params, RequestOptions(), "logits")
    poison(engine, TEXT[40:])
    run(engine)
    assert (str(request.error), len(request.row_values)) == ("injected", 32)


def test_rows_of_a_prompt_whose_log_probabilities_nobody_took_run_again() -> None:
    """Ctrl-C came while the decode beside the second chunk of the prompt was booked: the chunk's
    rows are in their blocks, but what they gave is lost."""
    wanted = answered(tiny_engine(MODEL, POOL), TEXT[:40], prompt_logprobs=1, max_tokens=2)
    engine = tiny_engine(MODEL, POOL, max_rows=16, step_ms=None)
    other = add(engine, TEXT[50:53], max_tokens=9, ignore_eos=True)
    request = add(engine, TEXT[:40], prompt_logprobs=1, max_tokens=2)
    engine.step()
    broken = fault(engine, "kv.counts", KeyboardInterrupt, after=True)
    with broken, pytest.raises(KeyboardInterrupt):
        engine.step()
    run(engine)
    assert (other.branches[0].num_completion_tokens, request.error) == (9, None)
    assert answers(request) == answers(wanted)


def test_rows_that_run_again_read_nothing_that_a_window_has_let_go() -> None:
    """A request fails while it is updated. The rows of the one behind it are stored, and its window
    has moved on, but nobody took what they gave."""
    shape = Grouped((windowed(3),), num_layers=2, vocab_size=TINY.vocab_size)
    model = random_model(build(shape), POOL, type=GGMLType.Q4_1)
    found = []
    for fails in (False, True):
        engine = tiny_engine(model, POOL, block_size=16, step_ms=None)
        one = add(engine, TEXT[50:53], max_tokens=1)
        other = add(engine, TEXT[:50], max_tokens=2, prompt_logprobs=1)
        with fault(engine, "requests.finish_branch", nth=int(fails)):  # no call is the 0th
            run(engine)
        assert (str(one.error), other.error) == ("injected" if fails else "None", None)
        found.append(answers(other))
    assert found[0] == found[1]


@pytest.mark.parametrize("window", [3, 19])  # the last row reads the end of a block
def test_a_prompt_whose_rows_were_not_booked_reads_nothing_that_its_window_has_let_go(
    window: int,
) -> None:
    """The cache has its rows, and the window has moved on; that they are computed was not noted. So
    they ran again from the first one, and read what another request had put there, or nothing."""
    shape = Grouped((windowed(100), windowed(window)), num_layers=2, vocab_size=TINY.vocab_size)
    model = random_model(build(shape), POOL, type=GGMLType.Q4_1)
    asked: dict[str, Any] = {"max_tokens": 3, "logprobs": 1}
    wanted = answered(tiny_engine(model, POOL, block_size=16), TEXT[:50], **asked)
    engine = tiny_engine(model, POOL, block_size=16, step_ms=None)
    add(engine, TEXT[50:53], max_tokens=9)  # has the first block
    request = add(engine, TEXT[:50], **asked)
    with fault(engine, "kv.pool.free"), pytest.raises(RuntimeError, match="injected"):
        engine.step()
    run(engine)
    assert request.error is None
    assert answers(request) == answers(wanted)


def test_beams_whose_end_was_broken_off_keep_its_reason() -> None:
    now = 0.0
    engine = tiny_engine(MODEL, POOL, clock=lambda: now)
    options = RequestOptions(deadline_ms=1000)
    request = add(engine, TEXT[:9], options, beam_width=2, max_tokens=9, ignore_eos=True)
    engine.step()
    now = 1.0
    decoding = request.decoding
    with fault(decoding, "close", KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        engine.step()
    assert request.finished
    assert [s.finish_reason for s in request.branches] == ["deadline"]
    engine.check_integrity()


def test_an_answer_whose_end_was_broken_off_by_an_error_is_whole() -> None:
    engine = tiny_engine(MODEL, POOL)
    request = add(engine, TEXT[:9], max_tokens=1)
    with fault(engine, "draws.close"):
        assert engine.step().finished == [request]
    assert (request.error, request.branches[0].finish_reason) == (None, "length")
    engine.check_integrity()
