"""A reader that leaves, in whichever way, ends its request and nothing else."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

import pytest

from octavo import LLM, AsyncEngine, TokenStream
from octavo.batch import StepOutput
from octavo.engine.step import StepPlan
from tests.gate import Gate
from tests.serving.stories import GREEDY, LONG, assert_nothing_held, in_a_loop, pieces


@pytest.mark.parametrize("how", ["aclose", "cancel", "cancel generate", "drop"])
@pytest.mark.parametrize("stage", ["waiting", "prefill", "decode"])
@in_a_loop
async def test_a_reader_that_leaves_ends_its_request_before_the_next_step(
    tiny_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, stage: str
) -> None:
    """A prompt of 40 tokens runs in chunks of 16, 16 and 8; each further step is one token."""
    llm = LLM(tiny_path, threads=1, block_size=16, max_batch_tokens=16, max_num_seqs=1)
    gate = Gate(llm, monkeypatch)
    prompt = [i * 5 % 256 for i in range(40)]
    steps_before = {"waiting": 0, "prefill": 1, "decode": 5}[stage]
    async with AsyncEngine(llm) as engine:
        other = engine.stream([1, 2], LONG) if stage == "waiting" else None
        if other is not None:
            await gate.arrival()
        asked: list[Any] = [engine.stream(prompt, LONG)] if how != "cancel generate" else []
        if not asked:
            asked.append(asyncio.create_task(engine.generate(prompt, LONG)))
        for _ in range(steps_before):
            await gate.arrival()
            gate.let_one_pass()
        if stage != "waiting":
            await gate.arrival()  # in the middle of the next step
        await leave(asked, how)
        if other is not None:
            await other.aclose()
        steps = len(gate.batches)
        gate.open()
        await asyncio.to_thread(assert_nothing_held, llm)
        assert len(gate.batches) == steps == max(1, steps_before + (stage != "waiting"))
        again = await engine.generate(prompt, GREEDY)
        found = {"waiting": 0, "prefill": 32, "decode": 39}[stage]
        assert again.cache.matched_tokens == found  # its blocks can still be found


async def leave(asked: list[Any], how: str) -> None:
    if how == "aclose":
        await asked[0].aclose()
        assert await pieces(asked[0]) == []
    elif how == "drop":
        asked.clear()
    else:
        reader = asked.pop() if how == "cancel generate" else pieces(asked.pop())
        reader = asyncio.ensure_future(reader)
        await asyncio.sleep(0)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        del reader


@in_a_loop
async def test_streams_that_the_garbage_collector_drops_inside_a_step_hold_nothing(
    llm: LLM, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the offline API used to wait for the lock that its own thread held."""
    offline, forward = llm.stream([6, 7], LONG), llm.loop.engine.runner.forward
    next(offline)
    lost: list[object] = [engine.stream([4, 5], LONG), offline]
    lost.append(lost)  # a cycle: only the collector finds it
    del lost, offline

    def collecting(plan: StepPlan) -> StepOutput:
        gc.collect()
        return forward(plan)

    monkeypatch.setattr(llm.loop.engine.runner, "forward", collecting)
    await engine.generate([1, 2], GREEDY)
    await asyncio.to_thread(assert_nothing_held, llm)


def test_a_loop_that_closes_ends_its_requests_and_harms_no_other(llm: LLM, gate: Gate) -> None:
    engine = AsyncEngine(llm)

    async def begin() -> list[TokenStream]:
        return [engine.stream([k], LONG) for k in (1, 2)]

    loop = asyncio.new_event_loop()
    streams = loop.run_until_complete(begin())
    gate.wait()
    loop.close()
    gate.open()

    @in_a_loop
    async def others_are_answered() -> None:
        assert (await engine.generate([3], GREEDY)).usage.completion_tokens == 8
        await asyncio.to_thread(assert_nothing_held, llm)
        assert len(gate.batches) <= 9  # not the 60 of those whom nobody can read
        await engine.aclose()

    others_are_answered()
    del streams
