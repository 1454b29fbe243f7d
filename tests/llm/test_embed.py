"""Embeddings by the offline API, and by an event loop's."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest

from octavo import LLM, AsyncEngine, RequestOptions, SamplingParams, UsageError
from octavo.serving.prepare import Prompt


def test_each_prompt_has_one_and_draws_nothing(llm: LLM) -> None:
    prompts: list[Prompt] = ["one text", "another", [5, 6, 7]]
    outputs = llm.embed(prompts)
    for output in outputs:
        assert output.embedding is not None
        assert len(output.embedding) == llm.program.hidden_size
        assert abs(np.linalg.norm(output.embedding) - 1) < 1e-6
        assert np.array(output.embedding, np.float32).tolist() == list(output.embedding)
        (answer,) = output.outputs
        assert (answer.text, answer.token_ids, answer.finish_reason) == ("", (), "length")
        assert output.usage.completion_tokens == 0
    assert outputs[2].prompt_token_ids == (5, 6, 7)
    assert len({output.embedding for output in outputs}) == 3
    assert json.loads(json.dumps(outputs[0].to_dict()))["embedding"] == list(
        outputs[0].embedding or ()
    )


def test_pooling_is_an_option_like_any_other(llm: LLM) -> None:
    (last,), (mean,) = (llm.embed("one text", pooling=p) for p in ("last", "mean"))
    assert last.embedding != mean.embedding
    options = [RequestOptions(pooling="mean"), RequestOptions(pooling="last"), RequestOptions()]
    found = llm.generate(["one text"] * 3, options=options)
    assert [o.embedding for o in found] == [mean.embedding, last.embedding, None]
    (*_, end) = llm.stream("one text", options=RequestOptions(pooling="mean"))
    assert end.output is not None
    assert end.output.embedding == mean.embedding


def test_what_is_asked_wrongly_is_said(llm: LLM) -> None:
    with pytest.raises(UsageError, match="pooling='cls': expected one of last, mean"):
        llm.embed("one", pooling="cls")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="pooling: expected one of last, mean, found None"):
        llm.embed("one", pooling=None)  # type: ignore[arg-type]
    params: list[dict[str, Any]] = [{"n": 2}, {"logprobs": 1}, {"max_tokens": 3}]
    for each in params:
        with pytest.raises(UsageError, match="pooling: an embedding is not drawn"):
            llm.generate("one", SamplingParams(**each), RequestOptions(pooling="last"))


def test_an_event_loop_gets_the_same(llm: LLM) -> None:
    texts = [f"text {i}" for i in range(9)]
    want = [output.embedding for output in llm.embed(texts, pooling="mean")]

    async def story() -> None:
        async with AsyncEngine(llm) as engine:
            outputs = await asyncio.gather(*(engine.embed(t, pooling="mean") for t in texts))
            assert [output.embedding for output in outputs] == want

    asyncio.run(story())
