"""Long texts: pieces have the tokens of the whole, the stated bound is true, a limit is kept."""

from __future__ import annotations

import random
import sys
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.tokenizer import Tokenizer, TokenizerSpec, TokenType, TooManyTokensError
from octavo.tokenizer.long_text import LongTexts
from tests.tokenizer.fixture_specs import load_spec, load_texts, load_tokenizer, with_pieces
from tests.tokenizer.slow_bpe import FAMILIES
from tests.tokenizer.test_spm import random_spec


def with_user_defined(spec: TokenizerSpec, *pieces: str) -> TokenizerSpec:
    return with_pieces(spec, *pieces, kind=TokenType.USER_DEFINED)


def without_byte_tokens() -> TokenizerSpec:
    spec = load_spec("tiny_spm")
    types = [TokenType.CONTROL if kind == TokenType.BYTE else kind for kind in spec.types]
    return replace(spec, token_types=types)


# Pieces that lie across what would be a cut.
ACROSS = ("n a", "h.", "\u306e\u3002\n")
SPECS = {
    **{pre: with_user_defined(load_spec("tiny_bpe", pre=pre), *ACROSS) for pre in FAMILIES},
    "spm": load_spec("tiny_spm"),
    "spm, user-defined": with_user_defined(load_spec("tiny_spm"), *ACROSS),
    "spm, unknown characters": without_byte_tokens(),
    "spm, no blank": random_spec(random.Random(3)),
}
TOKENIZERS = {name: Tokenizer.from_spec(spec) for name, spec in SPECS.items()}
LONG = {name: LongTexts(t.spec, t.longest_token_bytes) for name, t in TOKENIZERS.items()}
each = pytest.mark.parametrize("name", SPECS)

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
TIGHT = st.text("an tTh'sre12 \n\t\r.,!\u3002\u732b\u306e\u0301\u0131\u00b2\u2581_-", max_size=80)
WORDS = st.lists(
    st.sampled_from([*ACROSS, "the", " the", "page", ".", "\n\n", "  ", "<tool>", "\u732b", "ab"])
).map("".join)


def check_pieces(name: str, text: str, size: int) -> None:
    pieces = list(LONG[name].pieces(text, size))
    assert "".join(pieces) == text
    encode = TOKENIZERS[name].encode
    ids = [i for piece in pieces for i in encode(piece, add_special=False)]
    assert ids == encode(text, add_special=False), name


@each
@given(text=ANY_TEXT | TIGHT | WORDS, size=st.integers(1, 8))
def test_pieces_have_the_tokens_of_the_whole(name: str, text: str, size: int) -> None:
    check_pieces(name, text, size)


@each
def test_so_have_those_of_naughty_texts(name: str) -> None:
    for text in load_texts():
        check_pieces(name, text, 1)


@each
@given(text=ANY_TEXT | TIGHT | WORDS, times=st.integers(1, 30))
def test_no_text_has_fewer_tokens_than_stated(name: str, text: str, times: int) -> None:
    text *= times
    assert len(TOKENIZERS[name].encode(text, add_special=False)) >= LONG[name].least_tokens(text)


def cuts(name: str, text: str) -> list[str]:
    return list(LONG[name].pieces(text, 1))


def test_texts_are_cut_where_words_end() -> None:
    text = "The cat,\nor a hat. 1\u732b\u3002\u732b"
    want = ["The", " cat", ",\nor", " a", " hat", ". 1", "\u732b", "\u3002\u732b"]
    assert cuts("smollm", text) == [*want[:5], ". 1\u732b", "\u3002\u732b"]
    assert cuts("spm", text)[:2] == ["The", " cat"]
    assert cuts("smollm", "n ab n ab") == ["n ab", " n ab"]  # across it lies a piece
    assert cuts("spm, no blank", "ab ab ab") == ["ab ab ab"]  # one unknown run may go on
    assert cuts("smollm", "a" * 50) == ["a" * 50]
    assert cuts("bloom", "The cat;or, a hat: 1") == ["The", " cat;or, a", " hat: 1"]


def test_the_bound_counts_what_is_sure_to_have_tokens() -> None:
    text = "\u732b" * 100  # 300 bytes
    assert LONG["spm"].least_tokens(text) == -(-300 // TOKENIZERS["spm"].longest_token_bytes)
    assert LONG["spm, no blank"].least_tokens(text) == 0  # all of it is one unknown token
    longest = TOKENIZERS["qwen2"].longest_token_bytes
    assert LONG["qwen2"].least_tokens(text) == -(-75 // longest)
    assert LONG["qwen2"].least_tokens("a" * 300) == -(-300 // longest)
    spec = load_spec("tiny_bpe")
    spec.tokens[spec.tokens.index("\u0104")] = "gone"  # it stood for byte 4
    dropping = Tokenizer.from_spec(spec)
    assert dropping.encode("\x04" * 900, add_special=False, limit=0) == []
    bound = LongTexts(spec, dropping.longest_token_bytes).least_tokens
    assert (bound("\x04" * 900), bound("\x04" * 900 + "a")) == (0, 1)


def test_a_piece_spelt_with_blanks_is_found_in_either_spelling() -> None:
    tokenizer = Tokenizer.from_spec(with_user_defined(load_spec("tiny_spm"), " " * 31))
    assert tokenizer.longest_token_bytes == 93
    text = "\u2581" * 31 * 50
    assert len(tokenizer.encode(text, add_special=False)) == 50
    assert LongTexts(tokenizer.spec, tokenizer.longest_token_bytes).least_tokens(text) == 50


def test_composing_leaves_a_quarter_of_the_bytes_at_least() -> None:
    """Each composed character is compared with its longest spelling."""
    spelt: dict[str, int] = {}  # a decomposed character: bytes of the longest one that is it
    composed = []
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        if 0xD800 <= code < 0xE000:
            continue
        parts = unicodedata.normalize("NFD", char)
        if len(parts) == 1:
            spelt[parts] = max(spelt.get(parts, 0), len(char.encode()))
        if unicodedata.normalize("NFC", char) == char:
            composed.append((char, parts))
    worst = max(sum(spelt[p] for p in parts) / len(char.encode()) for char, parts in composed)
    assert 3 < worst <= 4


@pytest.fixture
def short_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in ("_LONG", "_PIECE"):
        monkeypatch.setattr(f"octavo.tokenizer.tokenizer.{size}", 64)


@each
@pytest.mark.usefixtures("short_is_long")
def test_a_limit_is_kept_and_said(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    text = "ab abba. ab " * 200
    ids = tokenizer.encode(text)
    assert tokenizer.encode(text, limit=len(ids)) == ids
    assert tokenizer.encode(text[:60], limit=1) == tokenizer.encode(text[:60])  # short: whole
    if name == "spm, no blank":  # no cut: all of it, and the caller can count
        assert tokenizer.encode(text, limit=len(ids) - 1) == ids
        return
    for limit in (1, len(ids) // 2):
        with pytest.raises(TooManyTokensError) as raised:
            tokenizer.encode(text, limit=limit)
        assert limit < raised.value.count <= len(ids)


def test_no_more_is_encoded_than_tells_that_it_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Much too long by its bytes: nothing is. By its tokens: as far as the limit."""
    encoded = []
    tokenizer = load_tokenizer("tiny_bpe")
    plain = tokenizer.encode_plain
    monkeypatch.setattr(tokenizer, "encode_plain", lambda text: encoded.append(text) or plain(text))
    with pytest.raises(TooManyTokensError):
        tokenizer.encode("a" * 10**6, limit=1000)
    assert encoded == []
    with pytest.raises(TooManyTokensError):
        tokenizer.encode("x q " * 10**5, limit=30_000)
    assert [len(text) for text in encoded] == [8193, 8192, 8192, 8192]  # a token a character


@pytest.mark.parametrize("parse_special", [False, True])
@pytest.mark.usefixtures("short_is_long")
def test_a_chat_has_the_same_limit(parse_special: bool) -> None:
    for name, prefix in (("tiny_bpe", False), ("tiny_spm", False), ("tiny_spm", True)):
        tokenizer = load_tokenizer(name, add_space_prefix=prefix)
        for words in ("ab abba. ab " * 100, "<|end|>" * 100, "a<|turn|>" * 100):
            chat = [{"role": "user", "content": words}]
            ids = tokenizer.encode_chat(chat, parse_special=parse_special)
            limited = tokenizer.encode_chat(chat, parse_special=parse_special, limit=len(ids))
            assert limited == ids
            for limit in (1, 100):
                with pytest.raises(TooManyTokensError) as raised:
                    tokenizer.encode_chat(chat, parse_special=parse_special, limit=limit)
                assert limit < raised.value.count <= len(ids)


@pytest.mark.usefixtures("short_is_long")
def test_white_space_that_a_token_takes_is_no_reason_to_refuse() -> None:
    tokenizer = load_tokenizer("tiny_bpe", strip_right=frozenset({1}))
    text = "<|turn|>" + "\n " * 10**4 + "ab"
    ids = tokenizer.encode(text, parse_special=True)
    assert tokenizer.encode(text, parse_special=True, limit=len(ids)) == ids
    assert len(ids) < 10
    with pytest.raises(TooManyTokensError):
        tokenizer.encode(text + "abba" * 10**4, parse_special=True, limit=len(ids))
