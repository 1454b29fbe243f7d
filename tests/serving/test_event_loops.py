"""Several event loops, and threads of the offline API, share one engine."""

from __future__ import annotations

import asyncio
import threading

import pytest

from octavo import LLM, AsyncEngine
from octavo.errors import UsageError
from octavo.request import StreamChunk
from octavo.serving.async_output_queue import AsyncOutputQueue
from octavo.serving.output_queue import Update
from tests.gate import PATIENCE
from tests.serving.stories import GREEDY, PROMPTS, in_a_loop, pieces


@in_a_loop
async def test_a_stream_is_read_in_its_own_loop_only(llm: LLM, reference: LLM) -> None:
    # It would wait for ever: what wakes a reader is put into the loop of the request.
    want = [o.outputs for o in reference.generate([[5]], GREEDY)]
    async with AsyncEngine(llm) as engine:
        stream = engine.stream([5], GREEDY)
        with pytest.raises(UsageError, match="in the event loop it was made in"):
            await asyncio.to_thread(asyncio.run, pieces(stream))
        output = (await pieces(stream))[-1].output  # which harmed nothing
        assert output is not None
        assert [output.outputs] == want


def test_a_piece_for_a_loop_that_has_just_closed_is_dropped() -> None:
    async def begin() -> AsyncOutputQueue:
        return AsyncOutputQueue(print, streams=True, on_end=print)

    outputs = asyncio.run(begin())
    outputs.put(Update(chunks=[StreamChunk("a", (1,))]))
    assert outputs.is_dead


@in_a_loop
async def test_event_loops_and_offline_callers_share_one_engine(llm: LLM, reference: LLM) -> None:
    want = [o.outputs for o in reference.generate(PROMPTS, GREEDY)]
    found: dict[str, object] = {}

    async def ask_all(engine: AsyncEngine) -> list[object]:
        outputs = await asyncio.gather(*(engine.generate(p, GREEDY) for p in PROMPTS))
        return [o.outputs for o in outputs]

    async with AsyncEngine(llm) as engine:

        def online(name: str) -> None:
            found[name] = asyncio.run(ask_all(engine))

        def offline(name: str) -> None:
            found[name] = [o.outputs for o in llm.generate(PROMPTS, GREEDY)]

        workers = [
            *(threading.Thread(target=online, args=(f"loop {i}",)) for i in range(3)),
            *(threading.Thread(target=offline, args=(f"llm {i}",)) for i in range(2)),
        ]
        for worker in workers:
            worker.start()
        found["here"] = await ask_all(engine)
        for worker in workers:
            await asyncio.to_thread(worker.join, PATIENCE)
    assert len(found) == 6
    assert all(outputs == want for outputs in found.values())
