"""The queue between the engine's thread and an event loop: who is woken, and what is one piece."""

from __future__ import annotations

import asyncio

import pytest

from octavo.request import StreamChunk
from octavo.serving.async_output_queue import AsyncOutputQueue, Wakeup
from octavo.serving.output_queue import Update
from tests.serving.stories import in_a_loop


def update(text: str, index: int = 0) -> Update:
    return Update(chunks=[StreamChunk(text, (1,), index=index)])


def new_queue(wakeup: Wakeup) -> AsyncOutputQueue:
    return AsyncOutputQueue(lambda _: None, streams=True, on_end=lambda _: None, wakeup=wakeup)


@in_a_loop
async def test_only_who_waits_is_woken() -> None:
    loop, wakes = asyncio.get_running_loop(), []
    queue = new_queue(Wakeup())
    call = loop.call_soon_threadsafe

    def counted(*given: object) -> object:
        wakes.append(given)
        return call(*given)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "call_soon_threadsafe", counted)
        for text in "abc":
            queue.put(update(text))
        assert (await queue.next_chunk()).text == "abc"
        queue.put(update("d"))
        assert (await queue.next_chunk()).text == "d"
        assert wakes == []
        waiting = asyncio.create_task(queue.next_chunk())
        await asyncio.sleep(0)
        for text in "ef":
            queue.put(update(text))
        assert len(wakes) == 1
        assert (await waiting).text == "ef"


@in_a_loop
async def test_one_call_into_the_loop_wakes_all_readers() -> None:
    loop, wakeup, calls = asyncio.get_running_loop(), Wakeup(), 0
    queues = [new_queue(wakeup) for _ in range(8)]
    call = loop.call_soon_threadsafe

    def counted(*given: object) -> object:
        nonlocal calls
        calls += 1
        return call(*given)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "call_soon_threadsafe", counted)
        for step in range(1, 4):  # and again, once it was answered
            waiting = [asyncio.create_task(queue.next_chunk()) for queue in queues]
            await asyncio.sleep(0)
            for i, queue in enumerate(queues):
                queue.put(update(f"{step}.{i}"))
            found = [each.text for each in await asyncio.gather(*waiting)]
            assert found == [f"{step}.{i}" for i in range(8)]
            assert calls == step


@in_a_loop
async def test_a_reader_that_gets_more_as_it_reads_lets_others_run() -> None:
    queue, told = new_queue(Wakeup()), 0

    def read() -> None:
        nonlocal told
        told += 1
        while queue.take(read):
            pass
        if told < 100:
            queue.put(update("a"))  # the next step is as fast

    queue.take(read)
    queue.put(update("a"))
    for turns in range(1, 4):
        await asyncio.sleep(0)
        assert told == turns


@in_a_loop
async def test_a_read_that_is_cancelled_loses_nothing() -> None:
    queue = new_queue(Wakeup())
    waiting = asyncio.create_task(queue.next_chunk())
    await asyncio.sleep(0)
    waiting.cancel()
    queue.put(update("a"))  # wakes who has gone
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    assert (await queue.next_chunk()).text == "a"


@in_a_loop
async def test_who_does_not_wait_is_told_where_nothing_had_come_and_finds_an_error_last() -> None:
    queue, told = new_queue(Wakeup()), []

    def texts() -> list[str]:
        return [each.text for each in queue.take(lambda: told.append(1))]

    assert texts() == []
    for text in "ab":
        queue.put(update(text))
    await asyncio.sleep(0)
    assert (texts(), len(told)) == (["ab"], 1)
    queue.put(update("c"))
    await asyncio.sleep(0)
    assert (texts(), texts(), len(told)) == (["c"], [], 1)  # it looks again by itself
    queue.put(update("d"))
    queue.put(Update(error=ValueError("it ended")))
    await asyncio.sleep(0)
    assert (texts(), len(told)) == (["d"], 2)
    with pytest.raises(ValueError, match="it ended"):
        texts()


@in_a_loop
async def test_each_answer_has_a_piece_of_its_own() -> None:
    queue = new_queue(Wakeup())
    for text, index in (("a", 0), ("x", 1), ("b", 0)):
        queue.put(update(text, index))
    found = [await queue.next_chunk() for _ in range(2)]
    assert [(each.index, each.text) for each in found] == [(0, "ab"), (1, "x")]


@in_a_loop
async def test_a_take_has_also_what_a_read_left() -> None:
    queue = new_queue(Wakeup())
    for text, index in (("a", 0), ("x", 1), ("y", 2)):
        queue.put(update(text, index))
    assert (await queue.next_chunk()).text == "a"
    queue.put(update("b", 1))
    found = queue.take(lambda: None)
    assert [(each.index, each.text) for each in found] == [(1, "xb"), (2, "y")]
    assert queue.take(lambda: None) == []
