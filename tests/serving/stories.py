"""What the stories of this folder are told with: prompts, how they are asked, what is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import wraps
from typing import Any, ParamSpec

import pytest

from octavo import LLM, RequestOutput, SamplingParams, StreamChunk, TokenStream
from tests.gate import PATIENCE

Given = ParamSpec("Given")
GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
LONG = replace(GREEDY, max_tokens=60)
PROMPT = list(range(40))
PROMPTS = [[7 * i + j for j in range(3 + i)] for i in range(12)]


def assert_nothing_held(llm: LLM) -> None:
    """After all that was asked before."""
    llm.loop.call(llm.loop.engine.check_integrity)
    assert llm.loop.num_open == 0
    assert llm.stats()["kv_blocks_used"] == 0


def in_a_loop(story: Callable[Given, Coroutine[Any, Any, None]]) -> Callable[Given, None]:
    """Run a story in an event loop of its own; one that hangs fails."""

    @wraps(story)
    def run(*args: Given.args, **fixtures: Given.kwargs) -> None:
        asyncio.run(asyncio.wait_for(story(*args, **fixtures), PATIENCE))

    return run


async def pieces(stream: TokenStream) -> list[StreamChunk]:
    return [chunk async for chunk in stream]


def computed(llm: LLM, since: int = 0) -> list[int]:
    return [r.computed_tokens for r in llm.records[since:]]


def all_token_ids(output: RequestOutput) -> list[tuple[int, ...]]:
    return [answer.token_ids for answer in output.outputs]


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


def slow_down(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, now: list[float], seconds: float
) -> None:
    """Let a method take so long on the clock `now`."""
    method = getattr(owner, name)

    def slow(*arguments: object) -> object:
        now[0] += seconds
        return method(*arguments)

    monkeypatch.setattr(owner, name, slow)
