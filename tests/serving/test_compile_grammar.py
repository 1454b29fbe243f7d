"""Grammars behind the door that a server has."""

from __future__ import annotations

import asyncio
import threading

import pytest

from octavo import LLM, AsyncEngine, RequestOptions, SamplingParams
from octavo.constraint import Constraint
from octavo.errors import EngineClosedError, GrammarError
from octavo.grammar import GrammarSpec

DIGITS = GrammarSpec.of(regex="[0-9]{4}")


def test_an_answer_under_a_grammar(engine: AsyncEngine) -> None:
    async def story() -> str:
        options = RequestOptions(constraint=await engine.compile_grammar(DIGITS))
        chunks = engine.stream([1, 2], SamplingParams(seed=1, max_tokens=9), options)
        return "".join([chunk.text async for chunk in chunks])

    answer = asyncio.run(story())
    assert len(answer) == 4
    assert answer.isdigit()


def test_what_was_compiled_is_there_at_once(engine: AsyncEngine, llm: LLM) -> None:
    async def story() -> list[Constraint]:
        return [await engine.compile_grammar(DIGITS) for _ in range(2)]

    first, second = asyncio.run(story())
    assert first is second is llm.grammar(regex="[0-9]{4}")


def test_one_thread_compiles_and_never_the_event_loops(
    engine: AsyncEngine, llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_, threads = llm.preparer.grammars.compile, []

    def noted(spec: GrammarSpec) -> Constraint:
        threads.append(threading.current_thread())
        return compile_(spec)

    monkeypatch.setattr(llm.preparer.grammars, "compile", noted)

    async def story() -> None:
        specs = [GrammarSpec.of(regex=f"a{i}") for i in range(5)]
        await asyncio.gather(*map(engine.compile_grammar, specs))

    asyncio.run(story())
    assert len(threads) == 5
    assert len(set(threads)) == 1
    assert threads[0] is not threading.current_thread()


def test_what_is_wrong_is_raised_to_who_asked(engine: AsyncEngine) -> None:
    with pytest.raises(GrammarError, match="unclosed group"):
        asyncio.run(engine.compile_grammar(GrammarSpec.of(regex="(")))


def test_a_closed_engine_compiles_no_more(engine: AsyncEngine) -> None:
    async def story() -> None:
        found = await engine.compile_grammar(DIGITS)
        await engine.aclose()
        assert await engine.compile_grammar(DIGITS) is found
        await engine.compile_grammar(GrammarSpec.of(regex="[0-9]"))

    with pytest.raises(EngineClosedError, match="compiles no grammars"):
        asyncio.run(story())
