"""The token routes over a real socket; what is long does not run in the event loop."""

from __future__ import annotations

import threading

import pytest

from octavo.tokenizer import Tokenizer
from tests.server.live import Live

LONG = "ab cd " * 20_000


def test_tokens_there_and_back(live: Live) -> None:
    found = live.post("/tokenize", {"prompt": "hi!", "return_token_strs": True}).json
    assert found == {
        "count": 3, "max_model_len": 128, "tokens": [104, 105, 33], "token_strs": ["h", "i", "!"],
    }  # fmt: skip
    assert live.post("/detokenize", {"tokens": found["tokens"]}).json == {"prompt": "hi!"}
    assert (
        live.post("/detokenize", {"tokens": [9999]}).error == "tokens has 9999: expected 0 to 257"
    )
    assert live.post("/detokenize", {"tokens": "hi"}).status == 400
    assert live.post("/tokenize", {}).error == "expected one of prompt and messages"


def test_a_chat_is_shown_as_the_model_reads_it(live: Live) -> None:
    chat = {"messages": [{"role": "user", "content": "hi"}]}
    text = live.post("/apply-template", chat).json["prompt"]
    assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    tokens = live.post("/tokenize", chat).json["tokens"]
    assert live.post("/detokenize", {"tokens": tokens}).json["prompt"] == text
    usage = live.post("/v1/chat/completions", {**chat, "max_tokens": 1}).json["usage"]
    assert usage["prompt_tokens"] == len(tokens)


def test_what_would_change_nothing_is_refused(live: Live) -> None:
    chat = {"messages": [{"role": "user", "content": "hi"}]}
    told = live.post("/tokenize", {**chat, "add_special_tokens": True}).error
    assert told == "messages and add_special_tokens: give one of them"
    plain = {"prompt": "hi", "add_generation_prompt": False, "tools": None}
    assert live.post("/tokenize", plain).json["count"] == 2
    told = live.post("/tokenize", {**plain, "add_generation_prompt": True}).error
    assert told == "prompt and add_generation_prompt: give one of them"


def test_what_clients_ask_of_a_tokenizer(live: Live) -> None:
    found = live.get("/tokenizer_info").json
    assert found["eos_token"] == "<|im_end|>"
    assert "im_start" in found["chat_template"]


def test_long_texts_and_lists_are_read_beside_the_event_loop(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[str] = set()
    longest = 0
    encode, token_bytes = Tokenizer.encode_plain, Tokenizer.token_bytes

    def encoding(self: Tokenizer, text: str) -> list[int]:
        nonlocal longest
        longest = max(longest, len(text))  # no other thread runs Python until it is done
        threads.add(threading.current_thread().name)
        return encode(self, text)

    def naming(self: Tokenizer, token_id: int) -> bytes:
        threads.add(threading.current_thread().name)
        return token_bytes(self, token_id)

    monkeypatch.setattr(Tokenizer, "encode_plain", encoding)
    monkeypatch.setattr(Tokenizer, "token_bytes", naming)
    found = live.post("/tokenize", {"prompt": LONG, "return_token_strs": True}).json
    assert "".join(found["token_strs"]) == LONG
    assert live.post("/detokenize", {"tokens": found["tokens"]}).json["prompt"] == LONG
    assert longest < 10_000
    assert threads
    assert all(name.startswith("asyncio_") for name in threads), threads  # of the pool
