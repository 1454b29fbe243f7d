"""The end of an AsyncEngine: closed, drained, dropped, or left open by its program."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest

from octavo import LLM, AsyncEngine
from octavo.errors import EngineClosedError
from tests.gate import PATIENCE, Gate
from tests.serving.stories import GREEDY, LONG, PROMPTS, assert_nothing_held, in_a_loop, pieces


@in_a_loop
async def test_closing_ends_open_requests_with_what_they_have(
    tiny_path: Path, reference: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that decodes, one in the middle of its prompt, and one that waits."""
    llm = LLM(tiny_path, threads=1, max_batch_tokens=16, max_num_seqs=2)
    gate = Gate(llm, monkeypatch)
    engine = AsyncEngine(llm)
    decoding = engine.stream(PROMPTS[0], LONG)
    for _ in range(3):
        await gate.arrival()
        gate.let_one_pass()
    await gate.arrival()
    others = [engine.stream(list(range(k, k + 40)), LONG) for k in (0, 100)]
    gate.let_one_pass()
    await gate.arrival()
    assert len(gate.batches[-1].tokens) == 16  # one token, and 15 of the first of the others
    closing = [asyncio.create_task(engine.aclose()) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(EngineClosedError, match="make a new AsyncEngine"):
        engine.stream([1])
    gate.open()
    await asyncio.gather(*closing)
    await engine.aclose()
    ends = [(await pieces(s))[-1].output for s in (decoding, *others)]
    found = [(o.outputs[0].finish_reason, o.outputs[0].token_ids) for o in ends if o]
    (want,) = reference.generate(PROMPTS[0], LONG)[0].outputs
    assert found == [("abort", want.token_ids[:5]), ("abort", ()), ("abort", ())]
    assert_nothing_held(llm)
    assert llm.generate(PROMPTS[0], GREEDY)[0].usage.completion_tokens == 8  # it stays usable


@in_a_loop
async def test_draining_answers_what_is_open_and_takes_nothing_new(
    llm: LLM, reference: LLM
) -> None:
    engine = AsyncEngine(llm)
    answers = [asyncio.create_task(engine.generate(p, GREEDY)) for p in PROMPTS]
    await asyncio.sleep(0)
    await asyncio.gather(engine.drain(), *answers)
    with pytest.raises(EngineClosedError):
        await engine.generate([1])
    await engine.drain()
    await engine.aclose()
    want = reference.generate(PROMPTS, GREEDY)
    assert [a.result().outputs for a in answers] == [w.outputs for w in want]


@in_a_loop
async def test_who_stops_waiting_for_the_end_does_not_stop_it(llm: LLM, gate: Gate) -> None:
    engine = AsyncEngine(llm)
    answer = asyncio.create_task(engine.generate([1, 2], GREEDY))
    await gate.arrival()
    draining = asyncio.create_task(engine.drain())
    await asyncio.sleep(0)
    draining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await draining
    gate.open()
    await engine.drain()
    assert answer.done() or (await answer).usage.completion_tokens == 8


@in_a_loop
async def test_one_that_was_dropped_leaves_the_llm_to_others(llm: LLM) -> None:
    engine = AsyncEngine(llm)
    stream = engine.stream([1, 2], GREEDY)
    del engine
    assert (await pieces(stream))[-1].output is not None
    await asyncio.to_thread(assert_nothing_held, llm)
    async with AsyncEngine(llm) as engine:
        assert (await engine.generate([1], GREEDY)).usage.completion_tokens == 8


def test_a_closed_one_keeps_no_model(tiny_path: Path) -> None:
    async def story() -> weakref.ref[object]:
        llm = LLM(tiny_path, threads=1)
        async with AsyncEngine(llm) as engine:
            await engine.generate([1], GREEDY)
        llm.loop.call(bool)  # the thread has done all the rest
        return weakref.ref(llm)

    before = set(threading.enumerate())
    llm = asyncio.run(story())
    gc.collect()
    assert llm() is None
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_program_that_never_closes_it_ends_without_a_word(tiny_path: Path) -> None:
    program = f"""
import asyncio
from octavo import LLM, AsyncEngine, SamplingParams
engine = AsyncEngine(LLM({str(tiny_path)!r}, threads=1))
async def main():
    global stream
    stream = engine.stream([1, 2], SamplingParams(max_tokens=100, ignore_eos=True))
    print((await anext(stream)).token_ids[:0])
asyncio.run(main())
"""
    command = [sys.executable, "-X", "dev", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "()\n", "")


def test_one_in_a_forked_process_says_so_and_waits_for_nobody(tiny_path: Path) -> None:
    program = """
import asyncio, os, sys
from octavo import LLM, AsyncEngine, errors
async def ask():
    try:
        await engine.generate([1])
    except errors.EngineClosedError as error:
        print(error, flush=True)
    try:
        llm.generate([1])
    except errors.EngineClosedError as error:
        print(error, flush=True)
async def main():
    global engine, llm
    llm = LLM(sys.argv[1], threads=1)
    engine = AsyncEngine(llm)
asyncio.run(main())
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
asyncio.run(ask())
"""
    command = [sys.executable, "-c", program, str(tiny_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("make the LLM and its AsyncEngine in this one") == 2
