"""Streaming: whole characters only, and the stream's text is the text of all ids."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.tokenizer import Detokenizer, Tokenizer
from tests.tokenizer.fixture_specs import load_tokenizer

TOKENIZERS = {
    "bpe": load_tokenizer("tiny_bpe"),
    "spm": load_tokenizer("tiny_spm"),
    "spm with blank": load_tokenizer("tiny_spm", add_space_prefix=True),
}


def stream(tokenizer: Tokenizer, ids: list[int], **options: Any) -> list[str]:
    detokenizer = Detokenizer(tokenizer, **options)
    return [*map(detokenizer.push, ids), detokenizer.finish()]


def byte_ids(data: bytes) -> list[int]:
    tokens = TOKENIZERS["spm"].spec.tokens
    return [tokens.index(f"<0x{byte:02X}>") for byte in data]


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(data=st.data())
def test_the_stream_is_the_text_of_all_ids(kind: str, data: Any) -> None:
    tokenizer = TOKENIZERS[kind]
    # among the first ids are the control tokens and the single bytes, which break characters
    token_id = st.integers(0, tokenizer.vocab_size - 1) | st.integers(0, 261)
    ids = data.draw(st.lists(token_id, max_size=40))
    options = {"skip_special": data.draw(st.booleans()), "continuation": data.draw(st.booleans())}
    assert "".join(stream(tokenizer, ids, **options)) == tokenizer.decode(ids, **options)


def test_a_character_is_shown_when_its_last_byte_comes() -> None:
    ids = byte_ids("猫🦙".encode())
    assert stream(TOKENIZERS["spm"], ids) == ["", "", "猫", "", "", "", "🦙", ""]


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_character_cut_at_the_end_is_one_replacement(cut: int) -> None:
    ids = byte_ids("🦙".encode()[:cut])
    assert stream(TOKENIZERS["spm"], ids) == [""] * cut + ["\ufffd"]
    assert TOKENIZERS["spm"].decode(ids) == "\ufffd"


def test_bad_bytes_in_the_middle_are_replaced_as_python_does() -> None:
    data = b"a\xe7\x8cb\xff\xf0\x9fc"
    ids = byte_ids(data)
    assert "".join(stream(TOKENIZERS["spm"], ids)) == data.decode("utf-8", "replace")


def test_the_first_blank_goes_only_where_the_model_added_it() -> None:
    tokenizer = TOKENIZERS["spm with blank"]
    page = tokenizer.encode("page", add_special=False)
    assert "".join(stream(tokenizer, [1, *page])) == "page"
    assert "".join(stream(tokenizer, page, continuation=True)) == " page"
    assert "".join(stream(TOKENIZERS["spm"], page)) == " page"


def test_control_tokens_are_shown_on_request() -> None:
    tokenizer = TOKENIZERS["bpe"]
    ids = [*tokenizer.encode("hi", add_special=False), 2]
    assert "".join(stream(tokenizer, ids)) == "hi"
    assert "".join(stream(tokenizer, ids, skip_special=False)) == "hi<|end|>"
