"""What the stories of this folder are told with: prompts, how they are asked, what is left."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

from octavo import LLM, RequestOutput, SamplingParams, StreamChunk, TokenStream
from tests.gate import PATIENCE

GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
LONG = replace(GREEDY, max_tokens=60)
PROMPTS = [[7 * i + j for j in range(3 + i)] for i in range(12)]


def assert_nothing_held(llm: LLM) -> None:
    """After all that was asked before."""
    llm.loop.call(llm.loop.engine.check_integrity)
    assert llm.loop.num_open == 0
    assert llm.stats()["kv_blocks_used"] == 0


def run(story: Coroutine[Any, Any, None]) -> None:
    """A loop that hangs fails."""
    asyncio.run(asyncio.wait_for(story, PATIENCE))


async def pieces(stream: TokenStream) -> list[StreamChunk]:
    return [chunk async for chunk in stream]


def token_ids(output: RequestOutput) -> tuple[int, ...]:
    return output.outputs[0].token_ids


def fail_to_schedule(llm: LLM, monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> None:
    """Make the scheduler raise these from now on, one a step, and then work again."""
    schedule, left = llm.loop.engine.scheduler.schedule, iter(errors)

    def failing(*args: Any) -> Any:
        for error in left:
            raise error
        return schedule(*args)

    monkeypatch.setattr(llm.loop.engine.scheduler, "schedule", failing)
