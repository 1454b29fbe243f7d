"""Stories of one model behind asyncio: many readers, slow ones, those that leave, and its end."""

from __future__ import annotations

import asyncio
import gc
import queue
import subprocess
import sys
import threading
import weakref
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from octavo import LLM, AsyncEngine, RequestOptions, RequestOutput, SamplingParams
from octavo.batch import Batch, StepOutput
from octavo.errors import (
    EngineClosedError,
    KernelError,
    OutOfMemoryError,
    OverloadedError,
    PromptTooLongError,
    UsageError,
)
from octavo.request import StreamChunk
from octavo.serving.answer import _Text
from octavo.serving.async_engine import TokenStream
from octavo.serving.mailbox import Mailbox
from tests.cli.tiny_model import write_tiny_model
from tests.gate import PATIENCE, Gate

GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
LONG = replace(GREEDY, max_tokens=60)
PROMPTS = [[7 * i + j for j in range(3 + i)] for i in range(12)]


@pytest.fixture(scope="module")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="module")
def reference(tiny_path: Path) -> LLM:
    return LLM(tiny_path, threads=1)


@pytest.fixture
def llm(tiny_path: Path) -> Iterator[LLM]:
    llm = LLM(tiny_path, threads=1, block_size=16, max_batch_tokens=16)
    yield llm
    assert_nothing_held(llm)
    assert "octavo-engine" not in [t.name for t in threading.enumerate()]


def assert_nothing_held(llm: LLM) -> None:
    """In a turn of its own, which takes in what was asked before."""
    llm.desk.alone(llm._engine.check_integrity)
    assert llm.desk.num_open == 0
    assert llm.stats()["kv_blocks_used"] == 0


def run(story: Coroutine[Any, Any, None]) -> None:
    """A loop that hangs fails."""
    asyncio.run(asyncio.wait_for(story, PATIENCE))


async def pieces(stream: TokenStream) -> list[StreamChunk]:
    return [chunk async for chunk in stream]


def token_ids(output: RequestOutput) -> tuple[int, ...]:
    return output.outputs[0].token_ids


def test_requests_offered_at_once_get_the_answers_of_the_offline_api(
    llm: LLM, reference: LLM
) -> None:
    params = [
        SamplingParams(seed=1, max_tokens=10, n=1 + i % 3, logprobs=2, ignore_eos=i % 2 == 0)
        for i in range(10)
    ]
    params += [SamplingParams(max_tokens=6, beam_width=3, n=2), replace(LONG, stop_token_ids=[9])]

    async def story() -> None:
        async with AsyncEngine(llm) as engine:
            ask = zip(PROMPTS, params, strict=True)
            outputs = await asyncio.gather(*(engine.generate(p, q) for p, q in ask))
        want = reference.generate(PROMPTS, params)
        assert [o.outputs for o in outputs] == [w.outputs for w in want]
        assert [o.prompt_token_ids for o in outputs] == [tuple(p) for p in PROMPTS]

    run(story())


def test_streamed_pieces_make_each_answer_and_the_last_one_has_the_output(
    llm: LLM, reference: LLM
) -> None:
    params = SamplingParams(seed=3, max_tokens=20, n=3)

    async def story() -> None:
        async with AsyncEngine(llm) as engine:
            streams = [engine.stream(p, params) for p in PROMPTS]
            found = await asyncio.gather(*map(pieces, streams))
        for chunks, want in zip(found, reference.generate(PROMPTS, [params] * 12), strict=True):
            *before, last = chunks
            assert all(c.output is None for c in before)
            assert last.output is not None
            assert last.output.outputs == want.outputs
            for index, answer in enumerate(want.outputs):
                mine = [c for c in chunks if c.index == index]
                assert "".join(c.text for c in mine) == answer.text
                assert sum((c.token_ids for c in mine), ()) == answer.token_ids

    run(story())


def test_what_is_wrong_with_a_request_is_raised_where_it_is_made(llm: LLM) -> None:
    """Or, of a text, where it is read: it is encoded in another thread."""

    async def story() -> None:
        async with AsyncEngine(llm) as engine:
            with pytest.raises(UsageError, match="the prompt is empty"):
                engine.stream([])
            with pytest.raises(UsageError, match="the prompt is empty"):
                await anext(engine.stream(""))
            with pytest.raises(PromptTooLongError, match="has 200 tokens, the context holds 128"):
                await engine.generate([1] * 200)
            with pytest.raises(UsageError, match="stop_token_ids has 999: expected 0 to 257"):
                engine.stream([1], SamplingParams(stop_token_ids=[999]))
            with pytest.raises(UsageError, match="beams cannot be streamed"):
                engine.stream([1], SamplingParams(beam_width=2))

    run(story())


def test_a_request_that_can_never_fit_is_refused_where_it_is_read(tiny_path: Path) -> None:
    small = LLM(tiny_path, threads=1, kv_memory="16K")

    async def story() -> None:
        async with AsyncEngine(small) as engine:
            params = SamplingParams(n=2, max_tokens=60)
            with pytest.raises(OutOfMemoryError, match="may need 4 KV blocks of 32 tokens"):
                await engine.generate([1, 2], params)
            stream = engine.stream([1, 2], params)
            with pytest.raises(OutOfMemoryError):
                await anext(stream)
            assert await pieces(stream) == []
            assert (await engine.generate([1, 2], GREEDY)).usage.completion_tokens == 8
            unread = engine.stream([1, 2], params)
        with pytest.raises(OutOfMemoryError):  # nobody had to read it for the engine to close
            await anext(unread)

    run(story())
    assert_nothing_held(small)


def test_more_requests_than_may_wait_are_refused_with_the_numbers(
    tiny_path: Path, reference: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = LLM(tiny_path, threads=1, max_num_seqs=1)
    gate = Gate(llm, monkeypatch)

    async def story() -> None:
        async with AsyncEngine(llm, max_waiting=2) as engine:
            first = engine.stream(PROMPTS[0], GREEDY)
            await gate.arrival()  # one runs
            others = [engine.stream(p, GREEDY) for p in PROMPTS[1:3]]
            with pytest.raises(OverloadedError, match="2 requests in the queue, and at most 2 may"):
                engine.stream(PROMPTS[3], GREEDY)
            gate.let_one_pass()
            await gate.arrival()  # now the engine knows them
            with pytest.raises(OverloadedError, match=r"try again later, or raise max_waiting"):
                await engine.generate(PROMPTS[3], GREEDY)
            await others[1].aclose()
            gate.open()
            found = [(await pieces(s))[-1].output for s in (first, others[0])]
            found.append(await engine.generate(PROMPTS[3], GREEDY))  # now there is room
        want = reference.generate([*PROMPTS[:2], PROMPTS[3]], GREEDY)
        assert [o and o.outputs for o in found] == [w.outputs for w in want]

    run(story())
    assert_nothing_held(llm)


def test_prompts_of_the_offline_api_do_not_count_as_waiting(
    tiny_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = LLM(tiny_path, threads=1, max_num_seqs=1)
    gate = Gate(llm, monkeypatch)

    async def story() -> None:
        async with AsyncEngine(llm, max_waiting=1) as engine:
            batch = asyncio.create_task(asyncio.to_thread(llm.generate, PROMPTS, GREEDY))
            await gate.arrival()
            answer = asyncio.create_task(engine.generate(PROMPTS[0], GREEDY))
            gate.open()
            outputs = await batch
            assert (await answer).outputs == outputs[0].outputs

    run(story())


def test_a_slow_reader_finds_one_piece_for_each_answer_and_stalls_nobody(
    llm: LLM, reference: LLM
) -> None:
    params = replace(GREEDY, temperature=None, seed=2, n=2)

    async def story() -> None:
        async with AsyncEngine(llm) as engine:
            stream = engine.stream(PROMPTS[0], params)
            await engine.generate(PROMPTS[1], LONG)  # 60 steps, of which the first 8 are of both
            chunks = await pieces(stream)
        want = reference.generate(PROMPTS[0], params)[0]
        got = [(c.index, c.text, c.token_ids, c.output is None) for c in chunks]
        one, two = want.outputs
        assert got == [(0, one.text, one.token_ids, True), (1, two.text, two.token_ids, False)]

    run(story())


@pytest.mark.parametrize("how", ["aclose", "cancel", "drop"])
@pytest.mark.parametrize("stage", ["waiting", "prefill", "decode"])
def test_a_reader_that_leaves_ends_its_request_before_the_next_step(
    tiny_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, stage: str
) -> None:
    """A prompt of 40 tokens runs in chunks of 16, 16 and 8; each further step is one token."""
    llm = LLM(tiny_path, threads=1, block_size=16, max_batch_tokens=16, max_num_seqs=1)
    gate = Gate(llm, monkeypatch)
    prompt = [i * 5 % 256 for i in range(40)]
    steps_before = {"waiting": 0, "prefill": 1, "decode": 5}[stage]

    async def story() -> None:
        async with AsyncEngine(llm) as engine:
            other = engine.stream([1, 2], LONG) if stage == "waiting" else None
            if other is not None:
                await gate.arrival()
            streams = [engine.stream(prompt, LONG)]
            for _ in range(steps_before):
                await gate.arrival()
                gate.let_one_pass()
            if stage != "waiting":
                await gate.arrival()  # in the middle of the next step
            await leave(streams, how)
            if other is not None:
                await other.aclose()
            steps = len(gate.batches)
            gate.open()
            await asyncio.to_thread(assert_nothing_held, llm)
            assert len(gate.batches) == steps == max(1, steps_before + (stage != "waiting"))
            again = await engine.generate(prompt, GREEDY)
            found = {"waiting": 0, "prefill": 32, "decode": 39}[stage]
            assert again.cache.matched_tokens == found  # its blocks can still be found

    run(story())


async def leave(streams: list[TokenStream], how: str) -> None:
    if how == "aclose":
        await streams[0].aclose()
        assert await pieces(streams[0]) == []
    elif how == "cancel":
        reader = asyncio.create_task(pieces(streams.pop()))
        await asyncio.sleep(0)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        del reader
    else:
        streams.clear()


def test_a_cancelled_generate_ends_its_request(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(llm, monkeypatch)

    async def story() -> None:
        async with AsyncEngine(llm) as engine:
            task = asyncio.create_task(engine.generate([1, 2, 3], LONG))
            await gate.arrival()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.open()
            await asyncio.to_thread(assert_nothing_held, llm)
            assert len(gate.batches) == 1

    run(story())


def test_a_stream_that_the_garbage_collector_drops_inside_a_step_holds_nothing(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = llm._runner.forward

    def collecting(batch: Batch) -> StepOutput:
        gc.collect()
        return forward(batch)

    async def story() -> None:
        async with AsyncEngine(llm) as engine:
            lost: list[object] = [engine.stream([4, 5], LONG)]
            lost.append(lost)  # a cycle: only the collector finds it
            del lost
            monkeypatch.setattr(llm._runner, "forward", collecting)
            await engine.generate([1, 2], GREEDY)
            await asyncio.to_thread(assert_nothing_held, llm)

    run(story())


def test_an_error_of_one_request_reaches_its_reader_and_no_other(
    llm: LLM, reference: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = llm._runner.forward

    def failing(batch: Batch) -> StepOutput:
        if 255 in batch.tokens:
            raise RuntimeError("token 255")
        return forward(batch)

    monkeypatch.setattr(llm._runner, "forward", failing)

    async def story() -> None:
        async with AsyncEngine(llm) as engine:
            bad, bad_stream = engine.generate([1, 255]), engine.stream([255, 3])
            good = [engine.generate(p, GREEDY) for p in PROMPTS[:4]]
            reading = pieces(bad_stream)
            *found, one, two = await asyncio.gather(*good, bad, reading, return_exceptions=True)
            assert (str(one), str(two)) == ("token 255", "token 255")
        want = reference.generate(PROMPTS[:4], GREEDY)
        assert [o.outputs for o in found] == [w.outputs for w in want]

    run(story())


def test_a_text_that_cannot_be_told_fails_its_request_alone(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    catch_up = _Text.catch_up

    def failing(self: _Text) -> None:
        if self._branch.request.options.cache_salt == "bad":
            raise ValueError("no such token")
        catch_up(self)

    monkeypatch.setattr(_Text, "catch_up", failing)
    bad = RequestOptions(cache_salt="bad")

    async def story() -> None:
        async with AsyncEngine(llm) as engine:
            good = asyncio.create_task(engine.generate([1, 2], GREEDY))
            with pytest.raises(ValueError, match="no such token"):
                await engine.generate([1, 2], GREEDY, bad)
            assert (await good).usage.completion_tokens == 8
        with pytest.raises(ValueError, match="no such token"):
            llm.generate([1, 2], GREEDY, bad)
        ((_, output),) = llm.as_completed([1, 2], replace(GREEDY, n=2), bad)
        assert [c.finish_reason for c in output.outputs] == ["error"] * 2
        assert output.error == "no such token"

    run(story())


def fail_to_schedule(llm: LLM, monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> None:
    """From now on the scheduler raises these, one a step, and then works again."""
    schedule, left = llm._engine._scheduler.schedule, iter(errors)

    def failing(*args: Any) -> Any:
        for error in left:
            raise error
        return schedule(*args)

    monkeypatch.setattr(llm._engine._scheduler, "schedule", failing)


def test_a_step_that_fails_once_is_run_again(
    llm: LLM, reference: LLM, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:

    async def story() -> None:
        async with AsyncEngine(llm) as engine:
            fail_to_schedule(llm, monkeypatch, RuntimeError("for once"))
            found = await engine.generate(PROMPTS[2], GREEDY)
            assert found.outputs == reference.generate(PROMPTS[2], GREEDY)[0].outputs
        assert "a step failed, and no request caused it: they go on" in caplog.text

    run(story())


def test_an_engine_that_fails_ends_what_was_open_and_the_next_request_is_answered(
    llm: LLM, reference: LLM, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(llm, monkeypatch)
    bugs = [RuntimeError("a bug of the scheduler") for _ in range(2)]

    async def story() -> None:
        async with AsyncEngine(llm) as engine:
            stream = engine.stream(PROMPTS[0], LONG)
            task = asyncio.create_task(engine.generate(PROMPTS[1], LONG))
            await gate.arrival()
            fail_to_schedule(llm, monkeypatch, *bugs)
            gate.open()
            with pytest.raises(RuntimeError, match="a bug of the scheduler"):
                await task
            with pytest.raises(RuntimeError, match="a bug of the scheduler"):
                await pieces(stream)
            await asyncio.to_thread(assert_nothing_held, llm)
            found = await engine.generate(PROMPTS[2], GREEDY)
            assert found.outputs == reference.generate(PROMPTS[2], GREEDY)[0].outputs
        assert "requests end with its error" in caplog.text

    run(story())


def test_a_step_of_the_offline_api_that_raises_harms_only_its_caller(
    llm: LLM, reference: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ctrl-C in the main thread does."""
    forward = llm._runner.forward

    def interrupted(batch: Batch) -> StepOutput:
        if threading.current_thread().name == "caller":
            raise KeyboardInterrupt
        return forward(batch)

    monkeypatch.setattr(llm._runner, "forward", interrupted)
    raised: list[BaseException] = []

    def call() -> None:
        try:
            llm.generate(PROMPTS[2], LONG)
        except KeyboardInterrupt as error:
            raised.append(error)

    async def story() -> None:
        async with AsyncEngine(llm) as engine:
            answers = [asyncio.create_task(engine.generate(p, LONG)) for p in PROMPTS[:2]]
            caller = threading.Thread(target=call, name="caller")
            caller.start()
            found = await asyncio.gather(*answers)
            caller.join()
        assert len(raised) == 1
        want = reference.generate(PROMPTS[:2], LONG)
        assert [o.outputs for o in found] == [w.outputs for w in want]

    run(story())


def test_closing_ends_open_requests_with_what_they_have(
    tiny_path: Path, reference: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that decodes, one in the middle of its prompt, and one that waits."""
    llm = LLM(tiny_path, threads=1, max_batch_tokens=16, max_num_seqs=2)
    gate = Gate(llm, monkeypatch)

    async def story() -> None:
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
        found = [(o.outputs[0].finish_reason, len(token_ids(o))) for o in ends if o]
        assert found == [("abort", 5), ("abort", 0), ("abort", 0)]
        want = reference.generate(PROMPTS[0], LONG)[0]
        assert ends[0] is not None
        assert token_ids(ends[0]) == token_ids(want)[:5]

    run(story())
    assert_nothing_held(llm)
    assert llm.generate(PROMPTS[0], GREEDY)[0].usage.completion_tokens == 8  # it stays usable


def test_draining_answers_what_is_open_and_takes_nothing_new(llm: LLM, reference: LLM) -> None:
    async def story() -> None:
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

    run(story())


def test_who_stops_waiting_for_the_end_does_not_stop_it(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(llm, monkeypatch)

    async def story() -> None:
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

    run(story())


def test_an_llm_has_one_async_engine_at_a_time(llm: LLM) -> None:
    llm.generate([1], GREEDY)
    assert llm.desk._alarm.bell.due is not None

    async def story() -> None:
        async with AsyncEngine(llm):
            assert llm.desk._alarm.bell.due is None  # its thread cares for idle memory
            with pytest.raises(UsageError, match="this LLM has an AsyncEngine: share it, or close"):
                AsyncEngine(llm)
        async with AsyncEngine(llm) as engine:
            assert (await engine.generate([1], GREEDY)).usage.completion_tokens == 8

    run(story())


def test_one_whose_thread_cannot_be_started_leaves_the_llm_to_others(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    async def story() -> None:
        with monkeypatch.context() as patch:
            patch.setattr("threading.Thread.start", refuse)
            with pytest.raises(KernelError, match="can't start new thread, which an AsyncEngine"):
                AsyncEngine(llm)
        async with AsyncEngine(llm) as engine:
            assert (await engine.generate([1], GREEDY)).usage.completion_tokens == 8

    run(story())


def test_one_that_was_dropped_ends_its_thread(llm: LLM) -> None:
    async def story() -> None:
        engine = AsyncEngine(llm)
        thread = engine._thread._thread
        answer = asyncio.create_task(engine.generate([1, 2], GREEDY))
        await answer
        del engine, answer
        await asyncio.to_thread(thread.join, PATIENCE)
        assert not thread.is_alive()

    run(story())


def test_a_closed_one_keeps_no_model(tiny_path: Path) -> None:
    async def story() -> weakref.ref[object]:
        llm = LLM(tiny_path, threads=1)
        async with AsyncEngine(llm) as engine:
            await engine.generate([1], GREEDY)
        return weakref.ref(llm.desk)

    desk = asyncio.run(story())
    gc.collect()
    assert desk() is None


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
async def main():
    global engine
    engine = AsyncEngine(LLM(sys.argv[1], threads=1))
asyncio.run(main())
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
asyncio.run(ask())
"""
    command = [sys.executable, "-c", program, str(tiny_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    assert "make the LLM and its AsyncEngine in this one" in done.stdout


def test_a_loop_that_closes_ends_its_requests_and_harms_no_other(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(llm, monkeypatch)
    engine = AsyncEngine(llm)

    async def begin() -> list[TokenStream]:
        return [engine.stream([k], LONG) for k in (1, 2)]

    loop = asyncio.new_event_loop()
    streams = loop.run_until_complete(begin())
    gate.wait()
    loop.close()
    gate.open()

    async def story() -> None:
        assert (await engine.generate([3], GREEDY)).usage.completion_tokens == 8
        await asyncio.to_thread(assert_nothing_held, llm)
        assert len(gate.batches) <= 9  # not the 60 of those whom nobody can read
        await engine.aclose()

    run(story())
    del streams


def test_a_stream_is_read_in_its_own_loop_only(llm: LLM, reference: LLM) -> None:
    # It would wait for ever: what wakes a reader is put into the loop of the request.
    want = [o.outputs for o in reference.generate([[5]], GREEDY)]

    async def story() -> None:
        async with AsyncEngine(llm) as engine:
            stream = engine.stream([5], GREEDY)
            with pytest.raises(UsageError, match="in the event loop it was made in"):
                await asyncio.to_thread(asyncio.run, pieces(stream))
            output = (await pieces(stream))[-1].output  # which harmed nothing
            assert output is not None
            assert [output.outputs] == want

    run(story())


def test_a_piece_for_a_loop_that_has_just_closed_is_dropped() -> None:
    async def begin() -> Mailbox:
        return Mailbox(streams=True)

    mailbox = asyncio.run(begin())
    mailbox.tell()
    assert mailbox.is_dead


def test_event_loops_and_offline_callers_share_one_engine(llm: LLM, reference: LLM) -> None:
    want = [o.outputs for o in reference.generate(PROMPTS, GREEDY)]
    found: dict[str, object] = {}

    async def ask_all(engine: AsyncEngine) -> list[object]:
        outputs = await asyncio.gather(*(engine.generate(p, GREEDY) for p in PROMPTS))
        return [o.outputs for o in outputs]

    async def story() -> None:
        async with AsyncEngine(llm) as engine:

            def in_a_loop(name: str) -> None:
                found[name] = asyncio.run(ask_all(engine))

            def offline(name: str) -> None:
                found[name] = [o.outputs for o in llm.generate(PROMPTS, GREEDY)]

            workers = [
                *(threading.Thread(target=in_a_loop, args=(f"loop {i}",)) for i in range(3)),
                *(threading.Thread(target=offline, args=(f"llm {i}",)) for i in range(2)),
            ]
            for worker in workers:
                worker.start()
            found["here"] = await ask_all(engine)
            for worker in workers:
                await asyncio.to_thread(worker.join, PATIENCE)

    run(story())
    assert len(found) == 6
    assert all(outputs == want for outputs in found.values())


def test_steps_of_an_offline_caller_bring_an_async_answer_forward(
    llm: LLM, reference: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's own thread is kept busy elsewhere: the caller takes in, steps and ends all."""
    released = threading.Event()

    async def story() -> None:
        async with AsyncEngine(llm) as engine:
            monkeypatch.setattr(engine._thread, "_step", lambda: released.wait(PATIENCE))
            stream = engine.stream(PROMPTS[0], GREEDY)
            left = engine.stream(PROMPTS[2], LONG)
            await left.aclose()
            await asyncio.to_thread(llm.generate, PROMPTS[1], replace(GREEDY, max_tokens=9))
            chunks = await pieces(stream)
            assert not released.is_set()
            assert llm.desk.num_open == 0
            monkeypatch.undo()
            released.set()
        want = reference.generate(PROMPTS[0], GREEDY)[0].outputs
        assert chunks[-1].output is not None
        assert chunks[-1].output.outputs == want

    run(story())


class Bell(queue.SimpleQueue[None]):
    """Counts how often its thread sleeps, for how long at most, and wakes up."""

    def __init__(self) -> None:
        self.timeouts: list[float | None] = []
        self.num_wakes = 0
        self.asleep = threading.Semaphore(0)

    def get(self, block: bool = True, timeout: float | None = None) -> None:
        self.timeouts.append(timeout)
        self.asleep.release()
        try:
            super().get(block, timeout)
        finally:
            self.num_wakes += 1

    async def sleep(self, times: int) -> None:
        """Until its thread has gone to sleep so many more times."""
        for _ in range(times):
            assert await asyncio.to_thread(self.asleep.acquire, timeout=PATIENCE)


def bell_of(engine: AsyncEngine) -> Bell:
    bell = engine._thread._bell._rings
    assert isinstance(bell, Bell)
    return bell


def test_an_idle_engine_sleeps_until_it_is_called(
    tiny_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bells = SimpleNamespace(SimpleQueue=Bell, Empty=queue.Empty)
    monkeypatch.setattr("octavo.serving.bell.queue", bells)
    llm = LLM(tiny_path, threads=1, kv_idle=float("inf"))

    async def story() -> None:
        async with AsyncEngine(llm) as engine:
            bell = bell_of(engine)
            await bell.sleep(1)
            await engine.generate([1, 2], GREEDY)
            await bell.sleep(1)
            before = bell.num_wakes
            assert bell.timeouts == [None, threading.TIMEOUT_MAX]
            for _ in range(1000):
                engine.stats()
                await asyncio.sleep(0)
            assert (bell.num_wakes, len(bell.timeouts)) == (before, before + 1) == (1, 2)

    run(story())


def test_an_idle_engine_wakes_by_itself_only_when_memory_has_idled_enough(
    tiny_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Idle memory is due in 600 s, as said by a caller of the offline API; then at once; then
    never."""
    bells = SimpleNamespace(SimpleQueue=Bell, Empty=queue.Empty)
    monkeypatch.setattr("octavo.serving.bell.queue", bells)
    llm = LLM(tiny_path, threads=1)
    due = iter([None, 600.0, 0.0, None])
    reclaimers: list[str] = []

    def reclaim() -> float | None:
        reclaimers.append(threading.current_thread().name)
        return next(due, None)

    monkeypatch.setattr(llm._engine, "reclaim", reclaim)

    async def story() -> None:
        async with AsyncEngine(llm) as engine:
            bell = bell_of(engine)
            await bell.sleep(1)
            caller = threading.Thread(target=llm.desk.alone, args=(list,), name="caller")
            caller.start()
            await bell.sleep(1)  # a call lets it sleep less
            caller.join()
            assert bell.timeouts[0] is None
            assert bell.timeouts[1] == pytest.approx(600, abs=PATIENCE)
            await engine.generate([1], replace(GREEDY, max_tokens=1))
            await bell.sleep(2)  # for no time at all, and after it
            assert bell.timeouts[2:] == [0, None]
            assert llm.desk._alarm.bell.due is None  # the thread does its work
            assert reclaimers == ["MainThread", "caller", "octavo-engine", "octavo-engine"]

    run(story())


def test_a_server_needs_nothing_else(llm: LLM) -> None:
    async def story() -> None:
        async with AsyncEngine(llm) as engine:
            messages = [{"role": "user", "content": "hi"}]
            assert await engine.encode_chat(messages) == llm.encode_chat(messages)
            assert await engine.encode("hi") == llm.encode("hi")
            assert (engine.info, engine.config) == (llm.info, llm.config)
            assert engine.tokenizer.token_bytes(257) == b"<|im_end|>"
            assert [r.step for r in engine.records] == []
            assert engine.stats() == llm.stats()

    run(story())
