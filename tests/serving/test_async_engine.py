"""AsyncEngine gives the answers of the offline API, whole or in pieces, in any event loop."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from octavo import LLM, AsyncEngine, OutOfMemoryError, RequestOutput, SamplingParams
from octavo.errors import KernelError, OverloadedError, PromptTooLongError, UsageError
from octavo.request import StreamChunk
from octavo.serving.async_output_queue import AsyncOutputQueue, Wakeup
from octavo.serving.output_queue import Update
from tests.gate import Gate
from tests.serving.stories import GREEDY, LONG, PROMPTS, assert_nothing_held, in_a_loop, pieces


@in_a_loop
async def test_requests_offered_at_once_get_the_answers_of_the_offline_api(
    engine: AsyncEngine, reference: LLM
) -> None:
    params = [
        SamplingParams(seed=1, max_tokens=10, n=1 + i % 3, logprobs=2, ignore_eos=i % 2 == 0)
        for i in range(10)
    ]
    params += [SamplingParams(max_tokens=6, beam_width=3, n=2), replace(LONG, stop_token_ids=[9])]
    ask = zip(PROMPTS, params, strict=True)
    outputs = await asyncio.gather(*(engine.generate(p, q) for p, q in ask))
    want = reference.generate(PROMPTS, params)
    assert [o.outputs for o in outputs] == [w.outputs for w in want]
    assert [o.prompt_token_ids for o in outputs] == [tuple(p) for p in PROMPTS]


@in_a_loop
async def test_streamed_pieces_make_each_answer_and_the_last_one_has_the_output(
    engine: AsyncEngine, reference: LLM
) -> None:
    params = SamplingParams(seed=3, max_tokens=20, n=3, logprobs=1)
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
            assert all(len(c.logprobs or ()) == len(c.token_ids) for c in mine)
            assert sum((c.logprobs or () for c in mine), ()) == answer.logprobs
            assert [c.finish_reason for c in mine[:-1]] == [None] * (len(mine) - 1)
            assert mine[-1].finish_reason == answer.finish_reason


@in_a_loop
async def test_what_is_wrong_with_a_request_is_raised_where_it_is_made(engine: AsyncEngine) -> None:
    """What is wrong with a text is raised where it is read: it is encoded in another thread."""
    with pytest.raises(UsageError, match="the prompt is empty"):
        engine.stream([])
    with pytest.raises(UsageError, match="the prompt is empty"):
        await anext(engine.stream(""))
    with pytest.raises(PromptTooLongError, match="has 200 tokens, the context holds 128"):
        await engine.generate([1] * 200)
    with pytest.raises(UsageError, match="logit_bias has 258: expected 0 to 257"):
        engine.stream([1], replace(GREEDY, logit_bias={257: 1, 258: 1}))
    with pytest.raises(UsageError, match="stop_token_ids has 999: expected 0 to 257"):
        engine.stream([1], SamplingParams(stop_token_ids=[999]))
    with pytest.raises(UsageError, match="beams cannot be streamed"):
        engine.stream([1], SamplingParams(beam_width=2))


@in_a_loop
async def test_a_request_that_can_never_fit_is_refused_where_it_is_read(tiny_path: Path) -> None:
    small = LLM(tiny_path, threads=1, kv_memory="16K")
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
    assert_nothing_held(small)


@in_a_loop
async def test_more_requests_than_may_wait_are_refused_with_the_numbers(
    tiny_path: Path, reference: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = LLM(tiny_path, threads=1, max_num_seqs=1)
    gate = Gate(llm, monkeypatch)
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
    assert_nothing_held(llm)


@in_a_loop
async def test_prompts_of_the_offline_api_do_not_count_as_waiting(
    tiny_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = LLM(tiny_path, threads=1, max_num_seqs=1)
    gate = Gate(llm, monkeypatch)
    async with AsyncEngine(llm, max_waiting=1) as engine:
        batch = asyncio.create_task(asyncio.to_thread(llm.generate, PROMPTS, GREEDY))
        await gate.arrival()
        answer = asyncio.create_task(engine.generate(PROMPTS[0], GREEDY))
        gate.open()
        outputs = await batch
        assert (await answer).outputs == outputs[0].outputs


@in_a_loop
async def test_a_slow_reader_finds_one_piece_for_each_answer_and_stalls_nobody(
    engine: AsyncEngine, reference: LLM
) -> None:
    params = replace(GREEDY, temperature=None, seed=2, n=2, logprobs=0)
    stream = engine.stream(PROMPTS[0], params)
    await engine.generate(PROMPTS[1], LONG)  # 60 steps, of which the first 8 are of both
    chunks = await pieces(stream)
    want = reference.generate(PROMPTS[0], params)[0]
    got = [(c.index, c.text, c.token_ids, c.output is None) for c in chunks]
    one, two = want.outputs
    assert got == [(0, one.text, one.token_ids, True), (1, two.text, two.token_ids, False)]
    assert [c.logprobs for c in chunks] == [one.logprobs, two.logprobs]
    assert [c.finish_reason for c in chunks] == ["length", "length"]


@in_a_loop
async def test_what_was_found_of_a_prompt_is_known_while_it_runs(
    llm: LLM, engine: AsyncEngine, gate: Gate
) -> None:
    prompt = list(range(20))
    stream = engine.stream(prompt, GREEDY)
    await gate.arrival()
    assert not stream.is_waiting
    first = stream.cache
    later = engine.stream([*prompt[:16], 99, 98], GREEDY)
    assert (later.is_waiting, later.cache) == (True, None)
    gate.open()
    output, other = (await pieces(stream))[-1].output, (await pieces(later))[-1].output
    assert output is not None
    assert other is not None
    assert first == output.cache == stream.cache
    assert other.cache == later.cache
    assert other.cache.diverged_text == llm.tokenizer.decode([99], skip_special=False)


@in_a_loop
async def test_an_llm_has_one_async_engine_at_a_time(llm: LLM) -> None:
    async with AsyncEngine(llm):
        with pytest.raises(UsageError, match="this LLM has an AsyncEngine: share it, or close"):
            AsyncEngine(llm)
    async with AsyncEngine(llm) as engine:
        assert (await engine.generate([1], GREEDY)).usage.completion_tokens == 8
    AsyncEngine(llm)  # dropped at once
    async with AsyncEngine(llm) as engine:
        assert (await engine.generate([1], GREEDY)).usage.completion_tokens == 8


@in_a_loop
async def test_one_whose_thread_cannot_be_started_leaves_the_llm_to_others(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr("threading.Thread.start", refuse)
        with pytest.raises(KernelError, match="can't start new thread, which an engine needs"):
            AsyncEngine(llm)
    async with AsyncEngine(llm) as engine:
        assert (await engine.generate([1], GREEDY)).usage.completion_tokens == 8


@in_a_loop
async def test_a_server_needs_nothing_else(llm: LLM, engine: AsyncEngine) -> None:
    messages = [{"role": "user", "content": "hi"}]
    assert await engine.encode_chat(messages) == llm.encode_chat(messages)
    tools = [{"name": "f"}]
    assert await engine.encode_chat(
        messages, chat_template="{{ messages[0].content }}{{ tools[0].name }}", tools=tools
    ) == llm.encode("hif")
    assert await engine.encode("hi") == llm.encode("hi")
    assert (engine.info, engine.config) == (llm.info, llm.config)
    assert engine.tokenizer.token_bytes(257) == b"<|im_end|>"
    assert [r.step for r in engine.records] == []
    assert engine.stats() == llm.stats()


@in_a_loop
async def test_a_stream_is_read_in_its_own_loop_only(engine: AsyncEngine, reference: LLM) -> None:
    # It would wait for ever: what wakes a reader is put into the loop of the request.
    want = [o.outputs for o in reference.generate([[5]], GREEDY)]
    stream = engine.stream([5], GREEDY)
    with pytest.raises(UsageError, match="in the event loop it was made in"):
        await asyncio.to_thread(asyncio.run, pieces(stream))
    output = (await pieces(stream))[-1].output  # which harmed nothing
    assert output is not None
    assert [output.outputs] == want


def test_a_piece_for_a_loop_that_has_just_closed_is_dropped() -> None:
    async def begin() -> AsyncOutputQueue:
        return AsyncOutputQueue(print, streams=True, on_end=print, wakeup=Wakeup())

    outputs = asyncio.run(begin())
    outputs.put(Update(chunks=[StreamChunk("a", (1,))]))
    assert outputs.is_dead


@in_a_loop
async def test_event_loops_and_offline_callers_share_one_engine(
    llm: LLM, engine: AsyncEngine, reference: LLM
) -> None:
    want = [o.outputs for o in reference.generate(PROMPTS, GREEDY)]

    async def ask_all() -> list[RequestOutput]:
        return await asyncio.gather(*(engine.generate(p, GREEDY) for p in PROMPTS))

    found = await asyncio.gather(
        ask_all(),
        *(asyncio.to_thread(asyncio.run, ask_all()) for _ in range(3)),
        *(asyncio.to_thread(llm.generate, PROMPTS, GREEDY) for _ in range(2)),
    )
    assert [[o.outputs for o in outputs] for outputs in found] == [want] * 6
