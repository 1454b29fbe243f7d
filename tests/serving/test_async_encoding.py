"""AsyncEngine encodes texts beside the event loop: what may happen before a text is encoded."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest

from octavo import LLM, AsyncEngine
from octavo.errors import EngineClosedError, OverloadedError
from tests.gate import PATIENCE
from tests.serving.stories import GREEDY, in_a_loop, pieces

SHORT = replace(GREEDY, max_tokens=3)


class SlowEncoder:
    """Lets texts be encoded when `go` is set, and not before."""

    def __init__(self, llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: list[str] = []
        self.go = threading.Event()
        real = llm.tokenizer.encode

        def encode(*args: Any, **options: Any) -> list[int]:
            self.threads.append(threading.current_thread().name)
            assert self.go.wait(PATIENCE)
            return real(*args, **options)

        monkeypatch.setattr(llm.tokenizer, "encode", encode)


@pytest.fixture
def encoder(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> SlowEncoder:
    return SlowEncoder(llm, monkeypatch)


@in_a_loop
async def test_others_are_answered_while_a_text_is_encoded(
    engine: AsyncEngine, reference: LLM, encoder: SlowEncoder
) -> None:
    want = reference.generate("abc", SHORT)[0].outputs
    slow = asyncio.create_task(engine.generate("abc", SHORT))
    ids = asyncio.create_task(engine.encode("abc"))
    assert (await engine.generate([1, 2], SHORT)).usage.completion_tokens == 3
    assert not slow.done()
    encoder.go.set()
    assert (await slow).outputs == want
    assert await ids == list((await slow).prompt_token_ids)
    assert threading.current_thread().name not in encoder.threads


@in_a_loop
async def test_a_stream_that_closes_before_its_text_is_encoded_never_runs(
    llm: LLM, engine: AsyncEngine, encoder: SlowEncoder
) -> None:
    stream = engine.stream("abc", SHORT)
    await stream.aclose()
    encoder.go.set()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    await engine.drain()
    assert llm.stats()["steps"] == 0


@in_a_loop
async def test_an_engine_that_closes_tells_whoever_is_not_encoded_yet(
    llm: LLM, encoder: SlowEncoder
) -> None:
    engine = AsyncEngine(llm)
    stream = engine.stream("abc", SHORT)
    await engine.aclose()
    with pytest.raises(EngineClosedError, match="closed before the request began"):
        await anext(stream)
    encoder.go.set()
    assert llm.generate([1], SHORT)[0].usage.completion_tokens == 3


@in_a_loop
async def test_a_drained_engine_waits_for_what_is_being_encoded(
    llm: LLM, encoder: SlowEncoder
) -> None:
    engine = AsyncEngine(llm)
    answer = asyncio.create_task(engine.generate("abc", SHORT))
    await asyncio.sleep(0)
    draining = asyncio.create_task(engine.drain())
    encoder.go.set()
    await draining
    assert (await answer).usage.completion_tokens == 3


@in_a_loop
async def test_texts_that_are_being_encoded_wait_like_others(
    llm: LLM, encoder: SlowEncoder
) -> None:
    async with AsyncEngine(llm, max_waiting=2) as engine:
        streams = [engine.stream("abc", SHORT) for _ in range(2)]
        with pytest.raises(OverloadedError, match="2 requests in the queue"):
            engine.stream([1], SHORT)
        await streams.pop().aclose()  # leaves its place at once
        streams.append(engine.stream("abc", SHORT))
        encoder.go.set()
        for stream in streams:
            assert (await pieces(stream))[-1].output is not None


@in_a_loop
async def test_a_panic_of_the_tokenizer_reaches_the_reader(
    llm: LLM, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PanicError(BaseException):
        """A panic as pyo3 raises it: no Exception."""

    def encode(*args: Any, **options: Any) -> list[int]:
        raise PanicError("index out of bounds")

    monkeypatch.setattr(llm.tokenizer, "encode", encode)
    with pytest.raises(RuntimeError, match="could not be encoded: index out of bounds"):
        await engine.generate("abc", SHORT)
    assert (await engine.generate([1], SHORT)).usage.completion_tokens == 3
