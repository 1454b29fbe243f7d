"""What fails reaches those whom it concerns: one reader, or all that wait."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from octavo import LLM, AsyncEngine, RequestOptions, RequestOutput
from octavo.batch import StepOutput
from octavo.engine.nouns import Branch
from octavo.engine.step import StepPlan
from octavo.serving.request_text import RequestText
from tests.gate import Gate
from tests.serving.stories import (
    GREEDY,
    LONG,
    PROMPTS,
    assert_nothing_held,
    fail_to_schedule,
    in_a_loop,
    pieces,
)


@in_a_loop
async def test_an_error_of_one_request_reaches_its_reader_and_no_other(
    llm: LLM, engine: AsyncEngine, reference: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = llm.loop.engine.runner.forward

    def failing(plan: StepPlan) -> StepOutput:
        if 255 in plan.batch.tokens:
            raise RuntimeError("token 255")
        return forward(plan)

    monkeypatch.setattr(llm.loop.engine.runner, "forward", failing)
    bad, bad_stream = engine.generate([1, 255]), engine.stream([255, 3])
    good = [engine.generate(p, GREEDY) for p in PROMPTS[:4]]
    reading = pieces(bad_stream)
    *found, one, two = await asyncio.gather(*good, bad, reading, return_exceptions=True)
    assert (str(one), str(two)) == ("token 255", "token 255")
    want = reference.generate(PROMPTS[:4], GREEDY)
    answers = [o.outputs for o in found if isinstance(o, RequestOutput)]
    assert answers == [w.outputs for w in want]


@in_a_loop
async def test_a_text_that_cannot_be_told_fails_its_request_alone(
    llm: LLM, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    catch_up = RequestText.catch_up

    def failing(self: RequestText) -> list[Branch]:
        if self.request.options.cache_salt == "bad":
            raise ValueError("no such token")
        return catch_up(self)

    monkeypatch.setattr(RequestText, "catch_up", failing)
    bad = RequestOptions(cache_salt="bad")
    good = asyncio.create_task(engine.generate([1, 2], GREEDY))
    with pytest.raises(ValueError, match="no such token"):
        await engine.generate([1, 2], GREEDY, bad)
    assert (await good).usage.completion_tokens == 8
    with pytest.raises(ValueError, match="no such token"):
        llm.generate([1, 2], GREEDY, bad)
    ((_, output),) = llm.as_completed([1, 2], replace(GREEDY, n=2), bad)
    assert [c.finish_reason for c in output.outputs] == ["error"] * 2
    assert output.error == "no such token"


@in_a_loop
async def test_an_end_that_fails_too_keeps_no_other_reader_waiting(
    llm: LLM, engine: AsyncEngine, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text cannot be told, and its request's blocks do not go back at once, in the step in which
    another request ends."""
    kv, catch_up = llm.loop.engine.kv, RequestText.catch_up
    free = kv.free

    def failing_once(*_: object) -> None:
        monkeypatch.setattr(kv, "free", free)
        raise RuntimeError("a bug of the cache")

    def failing(self: RequestText) -> list[Branch]:
        if self.request.options.cache_salt == "bad":
            monkeypatch.setattr(kv, "free", failing_once)
            raise ValueError("no such token")
        return catch_up(self)

    monkeypatch.setattr(RequestText, "catch_up", failing)
    first = asyncio.create_task(engine.generate([1, 2], GREEDY))
    await gate.arrival()
    bad = asyncio.create_task(engine.generate([3], GREEDY, RequestOptions(cache_salt="bad")))
    good = asyncio.create_task(engine.generate([5, 6], replace(GREEDY, max_tokens=1)))
    await asyncio.sleep(0)
    gate.open()
    with pytest.raises(ValueError, match="no such token"):
        await bad
    assert (await good).usage.completion_tokens == 1
    assert (await first).usage.completion_tokens == 8


@in_a_loop
async def test_a_step_that_fails_once_is_run_again_and_one_that_fails_twice_is_told_to_all(
    llm: LLM,
    engine: AsyncEngine,
    reference: LLM,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    want = [o.outputs for o in reference.generate(PROMPTS, GREEDY)]
    fail_to_schedule(llm, monkeypatch, RuntimeError("for once"))
    assert [o.outputs for o in llm.generate(PROMPTS, GREEDY)] == want
    fail_to_schedule(llm, monkeypatch, RuntimeError("for once"))
    assert (await engine.generate(PROMPTS[2], GREEDY)).outputs == want[2]
    assert caplog.text.count("a step failed, and no request caused it: they go on") == 2
    gate = Gate(llm, monkeypatch)
    open_now = [asyncio.create_task(asyncio.to_thread(llm.generate, PROMPTS, LONG))]
    await gate.arrival()
    open_now.append(asyncio.create_task(asyncio.to_thread(llm.generate, [2], LONG)))
    others = engine.generate(PROMPTS[1], LONG), pieces(engine.stream(PROMPTS[0], LONG))
    asked = asyncio.gather(*open_now, *others, return_exceptions=True)
    while llm.loop.backlog < 3:  # all three wait for the step's end
        await asyncio.sleep(0)
    fail_to_schedule(llm, monkeypatch, *[RuntimeError("a bug of the scheduler")] * 2)
    gate.open()
    assert [repr(e) for e in await asked] == ["RuntimeError('a bug of the scheduler')"] * 4
    assert "the engine failed; 15 requests end with it" in caplog.text
    await asyncio.to_thread(assert_nothing_held, llm)
    assert (await engine.generate(PROMPTS[2], GREEDY)).outputs == want[2]  # the next request
