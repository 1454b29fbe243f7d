"""What the real model is given, prompts, parameters and options, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from octavo import LLM, SamplingParams
from octavo.errors import OutOfMemoryError, PromptTooLongError, UsageError
from tests.smollm2.capital import GREEDY, PROMPT, text


def test_bad_prompts_are_refused_in_one_line(llm: LLM) -> None:
    said = "the prompt has 1,025 tokens, the context holds 1,024"
    with pytest.raises(PromptTooLongError, match=said):
        llm.generate([[5] * 1025], GREEDY)
    with pytest.raises(UsageError, match="the prompt is empty"):
        llm.generate("", GREEDY)
    with pytest.raises(UsageError, match="token id 49152: expected a whole number from 0 to 49151"):
        llm.generate([[1, 49152]], GREEDY)
    with pytest.raises(UsageError, match="2 params for 1 prompt: give one, or one each"):
        llm.generate(PROMPT, [GREEDY, GREEDY])
    assert llm.stats()["kv_blocks_used"] == 0


def test_options_are_checked_by_name_and_range(smollm2_path: Path) -> None:
    with pytest.raises(UsageError, match="context=100000: the model was trained for at most 8,192"):
        LLM(smollm2_path, context=100_000)
    with pytest.raises(UsageError, match="kv_dtype='int3'"):
        LLM(smollm2_path, kv_dtype="int3")
    said = "a context of 8,192 tokens needs 188,743,680 bytes of KV"
    with pytest.raises(OutOfMemoryError, match=said):
        LLM(smollm2_path, context=8192, kv_memory="100M")


def test_a_small_budget_clamps_the_context(smollm2_path: Path) -> None:
    llm = LLM(smollm2_path, kv_memory="3M", threads=1)
    assert (llm.info.context, llm.info.kv_blocks) == (128, 4)
    outputs = llm.generate([PROMPT] * 6, SamplingParams(temperature=0, max_tokens=40))
    assert len({text(o) for o in outputs}) == 1
    assert llm.stats()["kv_blocks_used"] == 0


def test_what_is_no_prompt_and_no_params_is_refused_by_name(llm: LLM) -> None:
    for prompt, found in [
        (None, "found NoneType"),
        (b"abc", "found bytes"),  # a sequence of ints, and no token ids
        (bytearray(b"abc"), "found bytearray"),
        ([1.5, 2.5], "token id 1.5"),
        ([[1, 2.5]], "token id 2.5"),
        ([True, False], "token id True"),
        ([["a"]], "token id 'a'"),
        (np.array([1.0, 2.0]), "token id np.float64"),
        (np.array(3), "found ndarray"),
    ]:
        with pytest.raises(UsageError, match=found):
            llm.generate(prompt, GREEDY)  # type: ignore[arg-type]
    for method in (llm.logits, llm.score):
        said = f"{method.__name__} takes a list of token ids, found str: encode"
        with pytest.raises(UsageError, match=said):
            method("abc")  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="token id 'a': expected a whole number"):
            method(["a"])  # type: ignore[list-item]
    for params in ({"max_tokens": 2}, "ab", [None], 5):
        with pytest.raises(UsageError, match="params: expected SamplingParams"):
            llm.generate(PROMPT, params)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="params: expected SamplingParams"):
            llm.stream(PROMPT, params)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="stop_token_ids has 49152: expected 0 to 49151"):
        llm.generate(PROMPT, SamplingParams(stop_token_ids=[7, 49152]))
    assert llm.stats()["kv_blocks_used"] == 0


def test_special_tokens_of_a_user_are_text_unless_asked_for(llm: LLM) -> None:
    messages = [{"role": "user", "content": "<|im_end|>"}]
    (end,) = llm.tokenizer.encode("<|im_end|>", parse_special=True)
    params = SamplingParams(max_tokens=1)
    plain = llm.chat(messages, params).prompt_token_ids
    parsed = llm.chat(messages, params, parse_special=True).prompt_token_ids
    assert parsed.count(end) == plain.count(end) + 1
