"""Byte-level BPE: ids equal those of a slow implementation that shares no code with it."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from octavo.errors import UnsupportedModelError
from octavo.tokenizer import Tokenizer
from tests.tokenizer import slow_bpe
from tests.tokenizer.fixture_specs import load_golden, load_spec, load_tokenizer, with_pieces

FAMILIES = ["gpt-2", "smollm", "llama-bpe", "default", "qwen2"]
TOKENIZERS = {pre: load_tokenizer("tiny_bpe", pre=pre) for pre in FAMILIES}
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=40)
TIGHT_TEXT = st.text("ab an1 23'sStTrevVEmldD\n\r\t .,!-猫é½\u00a0", max_size=40)


def assert_comes_back(pre: str, text: str) -> None:
    """Qwen composes characters, as its own tokenizer does."""
    composed = unicodedata.normalize("NFC", text) if pre == "qwen2" else text
    assert TOKENIZERS[pre].decode(TOKENIZERS[pre].encode(text)) == composed


@pytest.mark.parametrize("pre", FAMILIES)
def test_ids_of_naughty_texts_equal_the_golden_ids_and_the_texts_come_back(pre: str) -> None:
    golden = load_golden(f"tiny_bpe_{pre}")
    assert len(golden) > 60
    for text, ids in golden:
        assert TOKENIZERS[pre].encode(text, add_special=False) == ids, text
        assert_comes_back(pre, text)


@pytest.mark.parametrize("pre", FAMILIES)
@given(text=ANY_TEXT | TIGHT_TEXT)
@example(text="e\u0301")
def test_ids_equal_the_slow_implementation_and_text_comes_back(pre: str, text: str) -> None:
    assert_comes_back(pre, text)
    spec = load_spec("tiny_bpe", pre=pre)
    assert TOKENIZERS[pre].encode(text, add_special=False) == slow_bpe.encode(text, spec, pre)


@pytest.mark.parametrize(
    ("pre", "words"),
    [
        ("gpt-2", ["It", "'s", " 1234", ",", " isn", "'", "T", "  ", " so", "\n", "\n", "x"]),
        ("smollm", ["It", "'s", " ", "1", "2", "3", "4", ",", " isn", "'", "T"]),
        ("llama-bpe", ["It", "'s", " ", "123", "4", ",", " isn", "'T", "  ", " so", "\n\n", "x"]),
        ("default", ["It", "'", "s", " ", "123", "4", ",", " isn", "'", "T", "  ", " so", "\n"]),
        ("qwen2", ["It", "'s", " ", "1", "2", "3", "4", ",", " isn", "'T", "  ", " so"]),
    ],
)
def test_families_cut_words_their_own_way(pre: str, words: list[str]) -> None:
    """The oracle itself is held to words written down by hand."""
    assert slow_bpe.split("It's 1234, isn'T   so\n\nx", pre)[: len(words)] == words


def test_llama_takes_a_word_whole_that_merges_would_not_build() -> None:
    for pre, whole in (("llama-bpe", True), ("gpt-2", False)):
        spec = with_pieces(load_spec("tiny_bpe", pre=pre), "qzqz")
        ids = Tokenizer.from_spec(spec).encode("qzqz", add_special=False)
        assert (ids == [len(spec.tokens) - 1]) is whole


def test_a_user_defined_token_is_found_in_plain_text() -> None:
    tokenizer = TOKENIZERS["gpt-2"]
    tool = tokenizer.spec.tokens.index("<tool>")
    ids = tokenizer.encode("a<tool>b", add_special=False)
    assert ids == [tokenizer.spec.tokens.index("a"), tool, tokenizer.spec.tokens.index("b")]


def test_bytes_without_a_token_are_dropped() -> None:
    spec = load_spec("tiny_bpe")
    spec.tokens[spec.tokens.index("\u0104")] = "gone"  # it stood for byte 4
    tokenizer = Tokenizer.from_spec(spec)
    assert tokenizer.decode(tokenizer.encode("a\x04b")) == "ab"


def test_an_unknown_pre_tokenizer_is_refused_by_name() -> None:
    said = r"'tekken' is not supported; known ones: .*gpt-2"
    with pytest.raises(UnsupportedModelError, match=said):
        load_tokenizer("tiny_bpe", pre="tekken")
