"""How pieces go out: by the loop's own calls; by the task where a reader is to be waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from octavo.protocol.streams import Event
from octavo.request import RequestOutput, StreamChunk
from octavo.server.beat import Beat
from octavo.server.outcome import Outcome
from octavo.server.pieces import Pieces
from octavo.server.sse import EventStream
from tests.serving.stories import in_a_loop

OUTPUT: Any = object()


class Source:
    """A stream whose pieces are put in by hand."""

    is_waiting, cache, progress = False, None, None

    def __init__(self) -> None:
        self.found: list[StreamChunk] = []
        self.error: Exception | None = None
        self.tell: Callable[[], None] = lambda: None

    def put(self, text: str, output: RequestOutput | None = None) -> None:
        self.found.append(StreamChunk(text, (1,), output))
        self.tell()

    def fail(self) -> None:
        self.error = ValueError("it ended")
        self.tell()

    def take(self, tell: Callable[[], None]) -> Sequence[StreamChunk]:
        self.tell = tell
        if self.error is not None:
            raise self.error
        found, self.found = self.found, []
        return found

    def __aiter__(self) -> AsyncIterator[StreamChunk]:
        raise NotImplementedError

    async def aclose(self) -> None:
        pass


class Writer:
    ends_with_done = True

    def begin(self) -> Sequence[Event]:
        return []

    def piece(self, prompt: int, chunk: StreamChunk) -> Sequence[Event]:
        return [Event(f"{prompt}{chunk.text}")] if chunk.text else []

    def end(self, outputs: Sequence[RequestOutput]) -> Sequence[Event]:
        return []

    def whole(self, outputs: Sequence[RequestOutput]) -> dict[str, object]:
        return {}


class Reader:
    """What takes pieces at once as long as it is `quick`, and else when it is `ready`."""

    def __init__(self) -> None:
        self.quick, self.ready = True, asyncio.Event()
        self.taken: list[str] = []
        self.events = EventStream(self._send, self._write_now)

    def _write_now(self, body: bytes) -> bool:
        if self.quick:
            self.taken.append(body.decode())
        return self.quick

    async def _send(self, message: dict[str, Any]) -> None:
        await self.ready.wait()
        self.taken.append(message["body"].decode())


class HandBeat(Beat):
    """It is time when that is said."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[Callable[[], None]] = []

    def after(self, gap: float) -> float:
        return gap

    def is_time(self, due: float) -> bool:
        return not due

    def at(self, due: float, turn: Callable[[], None]) -> None:
        self.turns.append(turn)

    def strike(self) -> None:
        turns, self.turns = self.turns, []
        for turn in turns:
            turn()


def writing(
    reader: Reader, *sources: Source, beat: Beat | None = None, gap: float = 0
) -> asyncio.Task[None]:
    outcome = Outcome("id", "tenant", "POST", "/")
    pieces = Pieces(
        reader.events, sources, Writer(), outcome, None, beat=beat or Beat(), gap=lambda: gap
    )
    return asyncio.create_task(pieces.write_all())


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def data(*texts: str) -> list[str]:
    return [f'data: "{text}"\n\n' for text in texts]


@in_a_loop
async def test_two_streams_of_one_loop_write_without_their_tasks() -> None:
    readers, sources = (Reader(), Reader()), (Source(), Source())
    tasks = [writing(r, s) for r, s in zip(readers, sources, strict=True)]
    await settle()
    for text in "ab":
        for source in sources:
            source.put(text)
        await asyncio.sleep(0)
    assert [each.taken for each in readers] == [data("0a", "0b")] * 2
    for source in sources:
        source.put("c", OUTPUT)
    await asyncio.gather(*tasks)
    assert [each.taken for each in readers] == [data("0a", "0b", "0c")] * 2


@in_a_loop
async def test_what_comes_in_a_gap_is_one_piece_after_it() -> None:
    reader, source, beat = Reader(), Source(), HandBeat()
    task = writing(reader, source, beat=beat, gap=1)
    await settle()
    source.put("a")
    assert (reader.taken, len(beat.turns)) == (data("0a"), 1)
    source.put("b")
    source.put("c")
    assert (reader.taken, len(beat.turns)) == (data("0a"), 1)
    beat.strike()
    assert "".join(reader.taken) == "".join(data("0a", "0b", "0c"))
    assert len(reader.taken) == 2
    beat.strike()
    assert beat.turns == []  # nothing came, and no time is waited for in vain
    source.put("d", OUTPUT)
    assert not task.done()
    beat.strike()
    await task


@in_a_loop
async def test_a_token_without_text_keeps_no_text_waiting() -> None:
    reader, source, beat = Reader(), Source(), HandBeat()
    task = writing(reader, source, beat=beat, gap=1)
    await settle()
    source.put("")
    beat.strike()
    source.put("a")
    assert reader.taken == data("0a")
    source.put("b", OUTPUT)
    assert reader.taken == data("0a")
    beat.strike()
    await task


@in_a_loop
async def test_a_slow_reader_is_waited_for_and_nothing_is_taken_meanwhile() -> None:
    reader, source = Reader(), Source()
    task = writing(reader, source)
    await settle()
    source.put("a")
    reader.quick = False
    source.put("b")
    await settle()
    source.put("c")
    await settle()
    assert (reader.taken, len(source.found)) == (data("0a"), 1)
    reader.quick = True
    reader.ready.set()
    await settle()
    assert reader.taken == data("0a", "0b", "0c")
    source.put("d", OUTPUT)
    await task
    assert reader.taken == data("0a", "0b", "0c", "0d")


@in_a_loop
async def test_an_error_is_raised_behind_what_came_and_to_its_own_reader() -> None:
    reader, others = Reader(), Reader()
    sources = Source(), Source(), Source()
    task, other = writing(reader, *sources[:2]), writing(others, sources[2])
    await settle()
    sources[0].found.append(StreamChunk("a", (1,)))
    sources[1].fail()  # which a step calls in a row with the next
    sources[2].put("b", OUTPUT)
    with pytest.raises(ValueError, match="it ended"):
        await task
    await other
    assert (reader.taken, others.taken) == (data("0a"), data("0b"))


@in_a_loop
async def test_who_was_cancelled_writes_nothing_any_more() -> None:
    reader, source, beat = Reader(), Source(), HandBeat()
    task = writing(reader, source, beat=beat, gap=1)
    await settle()
    source.put("a")
    source.put("b")  # is to be written at a time
    task.cancel()
    await asyncio.wait({task})
    beat.strike()
    source.put("c")
    assert reader.taken == data("0a")


@in_a_loop
async def test_where_nothing_is_written_at_once_the_task_writes_all() -> None:
    reader, source = Reader(), Source()
    reader.quick = False
    reader.ready.set()
    task = writing(reader, source)
    for text in "ab":
        source.put(text)
        await settle()
    source.put("c", OUTPUT)
    await task
    assert reader.taken == data("0a", "0b", "0c")
