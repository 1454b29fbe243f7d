"""Prompts and chats of the offline API: how long, of which types, through which template."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo import LLM, SamplingParams
from octavo.errors import PromptTooLongError, UsageError
from octavo.request import RequestOptions
from tests.cli.tiny_model import spm_entries, write_tiny_model

GREEDY = SamplingParams(temperature=0, max_tokens=12)


def test_a_prompt_that_is_too_long_is_told_what_helps(tiny_path: Path, llm: LLM) -> None:
    shorter = LLM(tiny_path, threads=1, context=64)
    bounded = LLM(tiny_path, threads=1, kv_memory=3 * llm.info.block_bytes)
    for asked, size, advice in [
        (llm, 128, "shorten it, the model was trained for no more"),
        (shorter, 64, "shorten it or load with a larger context"),
        (bounded, 96, "shorten it or raise kv_memory, which bounds the context"),
    ]:
        said = f"the prompt has {size + 1} tokens, the context holds {size}: {advice}"
        with pytest.raises(PromptTooLongError, match=said):
            asked.generate([[5] * (size + 1)], GREEDY)


def test_a_prompt_that_is_much_too_long_is_refused_before_it_is_encoded(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "a" * 1_200_000  # a byte is a token, but the longest one stands for twelve
    messages = [{"role": "user", "content": text}]

    monkeypatch.setattr(llm.tokenizer, "encode_plain", None)  # to encode it would fail
    least = r"the prompt has at least 100,00\d tokens, the context holds 128: shorten it"
    for ask in (
        lambda: llm.generate(text),
        lambda: llm.stream(text),
        lambda: llm.encode(text, parse_special=True),
        lambda: llm.chat(messages),
        lambda: llm.encode_chat(messages, parse_special=True),
    ):
        with pytest.raises(PromptTooLongError, match=least):
            ask()


def test_token_ids_of_numpy_are_token_ids(llm: LLM) -> None:
    ids: Any = np.array([[1, 2, 3], [4, 5, 6]])
    one, two = llm.generate(ids, GREEDY)
    assert (one.prompt_token_ids, two.prompt_token_ids) == ((1, 2, 3), (4, 5, 6))
    assert [type(t) for t in one.prompt_token_ids] == [int] * 3
    assert llm.generate(ids[0], GREEDY)[0].outputs == one.outputs
    assert llm.generate([list(ids[1])], GREEDY)[0].outputs == two.outputs
    assert llm.logits(ids[0]).shape == (3, 258)
    end: Any = np.int64(257)
    stops = replace(GREEDY, stop_token_ids=[end])
    assert llm.generate(ids[0], stops)[0].outputs == one.outputs


def test_a_model_without_a_template_is_refused_for_chat_by_name(tmp_path: Path) -> None:
    llm = LLM(write_tiny_model(tmp_path / "plain.gguf", template=None), threads=1)
    with pytest.raises(
        UsageError, match=r"plain\.gguf has no chat template: octavo run .*--chat-template FILE"
    ):
        llm.chat([{"role": "user", "content": "hi"}])
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    params = SamplingParams(max_tokens=2)
    assert llm.chat([{"role": "user", "content": "hi"}], params, chat_template=template).outputs


def test_a_chat_may_give_its_content_in_parts_to_a_template_that_knows_none(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.content }};{% endfor %}"
    llm = LLM(write_tiny_model(tmp_path / "plain.gguf", template=template), threads=1)
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    output = llm.chat([{"role": "user", "content": parts}], SamplingParams(max_tokens=2))
    assert llm.tokenizer.decode(output.prompt_token_ids) == "one\ntwo;"
    with pytest.raises(UsageError, match=r"messages\[0\]\.content: expected a string or a list"):
        llm.chat([{"role": "user", "contents": "hi"}])
    with pytest.raises(UsageError, match="leaves out what the user says"):
        llm.chat([{"role": "user", "content": "hi"}], chat_template="{{ bos_token }}hi")


def test_a_chat_answer_has_no_blank_of_spm_in_front(tmp_path: Path) -> None:
    more = spm_entries("{{ messages[-1].content }}")
    llm = LLM(write_tiny_model(tmp_path / "spm.gguf", more=more), threads=1)
    messages = [{"role": "user", "content": "hi"}]
    params = SamplingParams(temperature=0, max_tokens=4)
    raw = llm.generate("hi", params)[0]
    chat = llm.chat(messages, params)
    streamed = list(llm.chat_stream(messages, params))
    assert chat.prompt_token_ids == raw.prompt_token_ids
    assert raw.outputs[0].text == " " + chat.outputs[0].text
    assert "".join(c.text for c in streamed) == chat.outputs[0].text
    with pytest.raises(UsageError, match="begins_turn=1: expected True or False"):
        RequestOptions(begins_turn=1)  # type: ignore[arg-type]


def test_a_prompt_that_fills_the_pool_has_logits_and_scores(tiny_path: Path, llm: LLM) -> None:
    small = LLM(tiny_path, threads=1, kv_memory="16K", max_num_seqs=1, max_batch_tokens=7)
    assert small.info.kv_blocks == 2
    ids = [i * 7 % 258 for i in range(64)]
    assert np.array_equal(small.logits(ids), llm.logits(ids))
    assert np.array_equal(small.score(ids), llm.score(ids))


def test_logits_too_large_for_memory_are_refused(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octavo.serving.llm.LOGITS_LIMIT", 10 * 258 * 4)
    assert llm.logits([1] * 10).shape == (10, 258)
    with pytest.raises(UsageError, match="logits of 11 tokens take 11,352 bytes: at most 10"):
        llm.logits([1] * 11)
