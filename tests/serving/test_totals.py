"""What an AsyncEngine counts can be read at any time: whoever was told an end finds it counted."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from octavo import LLM, AsyncEngine
from tests.gate import Gate
from tests.serving.stories import GREEDY, LONG, PROMPTS, in_a_loop


@in_a_loop
async def test_an_end_is_counted_before_it_is_told(engine: AsyncEngine) -> None:
    for number, prompt in enumerate(PROMPTS[:6], start=1):
        await engine.generate(prompt, GREEDY)
        assert (engine.totals.requests, engine.totals.cancels) == (number, 0)
        assert engine.totals.finished == {"length": number}
        assert engine.totals.generated_tokens == 8 * number
    assert engine.totals.prompt_tokens == sum(map(len, PROMPTS[:6]))


@in_a_loop
async def test_a_stream_that_nobody_reads_any_more_is_counted_once_as_cancelled(
    engine: AsyncEngine, llm: LLM, gate: Gate
) -> None:
    """Its answer has not ended meanwhile: the next step stands at the gate until it is closed."""
    stream = engine.stream(PROMPTS[0], LONG)
    first = asyncio.ensure_future(anext(stream))
    await gate.arrival()
    gate.let_one_pass()
    await first
    await gate.arrival()
    closing = asyncio.ensure_future(stream.aclose())
    await asyncio.sleep(0)
    gate.open()
    await closing
    await stream.aclose()
    await engine.generate(PROMPTS[1], GREEDY)
    assert (engine.totals.requests, engine.totals.cancels) == (2, 1)
    assert engine.totals.finished == {"abort": 1, "length": 1}


@in_a_loop
async def test_what_is_asked_is_done_between_two_steps_unless_it_is_cancelled_before(
    engine: AsyncEngine, llm: LLM
) -> None:
    done: list[str] = []
    assert await asyncio.wrap_future(llm.loop.ask(lambda: done.append("first"))) is None
    holding = asyncio.Event()
    loop = asyncio.get_running_loop()
    released = asyncio.Event()

    def hold() -> None:
        loop.call_soon_threadsafe(holding.set)
        asyncio.run_coroutine_threadsafe(released.wait(), loop).result()

    first = asyncio.wrap_future(llm.loop.ask(hold))
    await holding.wait()
    second = asyncio.ensure_future(asyncio.wrap_future(llm.loop.ask(lambda: done.append("no"))))
    await asyncio.sleep(0)
    second.cancel()
    with suppress(asyncio.CancelledError):
        await second
    released.set()
    await first
    await asyncio.wrap_future(llm.loop.ask(lambda: done.append("last")))
    assert done == ["first", "last"]
