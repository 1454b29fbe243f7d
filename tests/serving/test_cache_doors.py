"""Pins, a look at the cache and its clearing, from an event loop, while others are answered."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from octavo import LLM, AsyncEngine, EngineClosedError, UsageError
from octavo.request import RequestOptions
from tests.gate import PATIENCE, Gate
from tests.serving.stories import GREEDY, LONG, PROMPT, in_a_loop, pieces


@in_a_loop
async def test_a_pin_is_kept_until_it_is_given_up_or_the_engine_closes(llm: LLM) -> None:
    async with AsyncEngine(llm) as engine:
        await engine.generate(PROMPT, GREEDY)
        pin = await engine.pin(PROMPT)
        assert pin.num_tokens == 32
        other = await engine.pin(PROMPT[:16])
        assert (await engine.view()).pins == (pin, other)
        assert (await engine.view("alice")).pins == ()
        assert await engine.unpin(other)
        assert not await engine.unpin(other)
        assert engine.stats()["kv_blocks_pinned"] == 2
    assert llm.stats()["kv_blocks_pinned"] == 0


@in_a_loop
async def test_what_a_prompt_would_find_is_told(engine: AsyncEngine) -> None:
    alice = RequestOptions(cache_salt="alice")
    assert await engine.cached(PROMPT, "alice") == 0
    await engine.generate(PROMPT, GREEDY, alice)
    assert await engine.cached(PROMPT, "alice") == len(PROMPT)
    other = [*PROMPT[:20], (PROMPT[20] + 1) % 256, *PROMPT[21:]]
    assert await engine.cached(other, "alice") == 20
    assert await engine.cached(PROMPT) == 0


@in_a_loop
async def test_pins_take_a_share_of_the_memory_at_most(llm: LLM) -> None:
    async with AsyncEngine(llm, pin_memory=0.0) as engine:
        await engine.generate(PROMPT, GREEDY)
        pin = await engine.pin(PROMPT)
        assert (pin.num_tokens, engine.stats()["kv_blocks_pinned"]) == (0, 0)
        assert pin.why_not == "32 tokens more would be pinned than memory is set aside for"


@in_a_loop
async def test_an_owner_has_a_part_of_it(llm: LLM) -> None:
    blocks = llm.info.kv_blocks
    async with AsyncEngine(llm, pin_memory=4 / blocks) as engine:
        other = PROMPT[::-1]
        for prompt in (PROMPT, other):
            await engine.generate(prompt, GREEDY)
        pins = [
            await engine.pin(prompt, owner=owner, part=0.5)
            for owner, prompt in (("ann", PROMPT), ("ann", other), ("bob", other))
        ]
        assert [pin.num_tokens for pin in pins] == [32, 0, 32]
        assert pins[1].why_not == "32 tokens more would be pinned than one of several callers may"


@in_a_loop
async def test_a_view_has_the_text_of_prefixes_of_one_salt(engine: AsyncEngine) -> None:
    alice = RequestOptions(cache_salt="alice")
    for _ in range(2):
        await engine.generate(PROMPT, GREEDY, alice)
    (prefix,) = (await engine.view("alice")).prefixes
    assert (prefix.token_ids, prefix.num_hits) == (tuple(PROMPT[:32]), 1)
    assert prefix.text == engine.tokenizer.decode(PROMPT[:32], skip_special=False)
    view = await engine.view()
    assert view.prefixes == ()
    assert view.counts["kv_blocks_used"] == 0
    assert view.waste == 0.0


@in_a_loop
async def test_what_is_cleared_is_computed_again_and_who_runs_goes_on(
    engine: AsyncEngine, gate: Gate, reference: LLM
) -> None:
    stream = engine.stream(PROMPT, LONG)
    for _ in range(4):
        await gate.arrival()  # prompts, and then a first decode
        clearing = asyncio.create_task(engine.clear())
        await asyncio.sleep(0)  # it asks, and is answered behind this step
        gate.let_one_pass()
        assert await clearing == 0  # all of it is held
    gate.open()
    found = await pieces(stream)
    (want,) = reference.generate([PROMPT], LONG)
    assert sum((c.token_ids for c in found), ()) == want.outputs[0].token_ids
    assert await engine.clear("alice") == 0
    assert await engine.clear("") > 0
    again = await engine.generate(PROMPT, GREEDY)
    assert again.cache.matched_tokens == 0


def test_the_llm_goes_on_after_a_close_that_gave_up_pins(llm: LLM) -> None:
    async def story() -> None:
        engine = AsyncEngine(llm)
        await engine.generate(PROMPT, GREEDY)
        await engine.pin(PROMPT)
        await engine.aclose()
        await engine.aclose()

    asyncio.run(asyncio.wait_for(story(), PATIENCE))
    assert llm.generate([PROMPT], GREEDY)[0].cache.matched_tokens == 39


def test_the_pins_of_an_engine_that_is_dropped_end_with_it(llm: LLM) -> None:
    async def story() -> None:
        engine = AsyncEngine(llm)
        await engine.generate(PROMPT, GREEDY)
        await engine.pin(PROMPT)
        assert llm.stats()["kv_blocks_pinned"] == 2

    asyncio.run(asyncio.wait_for(story(), PATIENCE))
    gc.collect()
    assert llm.stats()["kv_blocks_pinned"] == 0
    assert llm.generate([PROMPT], GREEDY)[0].cache.matched_tokens == 39


@in_a_loop
async def test_a_pin_that_nobody_waits_for_any_more_is_given_up_too(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = AsyncEngine(llm)
    await engine.generate(PROMPT, GREEDY)
    real = llm.loop.engine.cache.pin
    begun, goes_on = threading.Semaphore(0), threading.Semaphore(0)

    def slow_pin(*args: Any, **options: Any) -> Any:
        begun.release()
        assert goes_on.acquire(timeout=PATIENCE)
        return real(*args, **options)

    monkeypatch.setattr(llm.loop.engine.cache, "pin", slow_pin)
    pinning = asyncio.create_task(engine.pin(list(np.array(PROMPT))))
    assert await asyncio.to_thread(begun.acquire, timeout=PATIENCE)
    pinning.cancel()
    await asyncio.wait([pinning])
    goes_on.release()
    assert llm.stats()["kv_blocks_pinned"] == 2
    await engine.aclose()
    assert llm.stats()["kv_blocks_pinned"] == 0
    with pytest.raises(EngineClosedError, match="the engine is closed and pins nothing"):
        await engine.pin(PROMPT)


@in_a_loop
async def test_what_is_no_list_of_token_ids_is_not_pinned(engine: AsyncEngine) -> None:
    with pytest.raises(UsageError, match="pin takes a list of token ids, found str"):
        await engine.pin("text")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"token id 10\.5: expected a whole number"):
        await engine.pin([10.5])  # type: ignore[list-item]


class _OfOneThread(dict[Any, Any]):
    """Only the engine's thread may walk it: for others it may change on the way."""

    def __iter__(self) -> Iterator[Any]:
        assert threading.current_thread().name == "octavo-engine"
        return super().__iter__()


@in_a_loop
async def test_who_looks_from_outside_walks_nothing_that_a_step_changes(
    llm: LLM, engine: AsyncEngine, gate: Gate
) -> None:
    kv = llm.loop.engine.kv
    llm.loop.call(lambda: setattr(kv, "_tables", _OfOneThread(kv._tables)))
    stream = engine.stream(PROMPT, GREEDY)
    await gate.arrival()
    assert engine.stats()["kv_blocks_used"] == 1
    gate.open()
    await pieces(stream)
