"""Byte-level BPE: ids equal those of a slow implementation that shares no code with it."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.errors import UnsupportedModelError
from octavo.tokenizer import Tokenizer
from tests.tokenizer import slow_bpe
from tests.tokenizer.fixture_specs import load_golden, load_spec, load_tokenizer, with_pieces
from tests.tokenizer.slow_bpe import FAMILIES

TOKENIZERS = {pre: load_tokenizer("tiny_bpe", pre=pre) for pre in FAMILIES}
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=40)
TIGHT_TEXT = st.text("ab an1 23'sStTrevVEmldD\u017f\n\r\t .,!-/`猫é½\u00a0\u0301", max_size=40)
# Falcon's punctuation is that of its library, whose Unicode is older than Python's.
OLD_TEXT = st.text(st.characters(max_codepoint=0x52F, exclude_categories=["Cn"]), max_size=40)


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
@given(data=st.data())
def test_ids_equal_the_slow_implementation_and_text_comes_back(
    pre: str, data: st.DataObject
) -> None:
    spec = load_spec("tiny_bpe", pre=pre)
    for text in ("e\u0301", data.draw((OLD_TEXT if pre == "falcon" else ANY_TEXT) | TIGHT_TEXT)):
        assert_comes_back(pre, text)
        assert TOKENIZERS[pre].encode(text, add_special=False) == slow_bpe.encode(text, spec, pre)


@pytest.mark.parametrize(
    ("pre", "words"),
    [
        ("gpt-2", ["It", "'s", " 1234", ",", " isn", "'", "T", "  ", " so", "\n", "\n", "x"]),
        ("smollm", ["It", "'s", " ", "1", "2", "3", "4", ",", " isn", "'", "T"]),
        ("llama-bpe", ["It", "'s", " ", "123", "4", ",", " isn", "'T", "  ", " so", "\n\n", "x"]),
        ("default", ["It", "'", "s", " ", "123", "4", ",", " isn", "'", "T", "  ", " so", "\n"]),
        ("qwen2", ["It", "'s", " ", "1", "2", "3", "4", ",", " isn", "'T", "  ", " so"]),
        ("tekken", ["It", "'s", " ", "1", "2", "3", "4", ",", " isn", "'T", "  ", " so"]),
        ("gpt-4o", ["It's", " ", "123", "4", ",", " isn'T", "  ", " so", "\n\n", "x"]),
        ("falcon", ["It", "'", "s", " 1234", ",", " isn", "'", "T", "  ", " so", "\n", "\n"]),
    ],
)
def test_families_cut_words_their_own_way(pre: str, words: list[str]) -> None:
    """The oracle itself is held to words written down by hand."""
    assert slow_bpe.split("It's 1234, isn'T   so\n\nx", pre)[: len(words)] == words


def test_llama_takes_a_word_whole_that_merges_would_not_build() -> None:
    for pre, whole in (("llama-bpe", True), ("tekken", True), ("gpt-2", False), ("dbrx", False)):
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
    said = r"'whitespace' is not supported; known ones: .*gpt-2.*tekken"
    with pytest.raises(UnsupportedModelError, match=said):
        load_tokenizer("tiny_bpe", pre="whitespace")


@pytest.mark.parametrize(
    ("name", "pre"),
    [
        ("refact", "smollm"), ("starcoder", "smollm"), ("minerva-7b", "smollm"),
        ("granite-docling", "gpt-2"), ("olmo", "gpt-2"), ("phi-2", "gpt-2"), ("mpt", "gpt-2"),
        ("falcon3", "llama-bpe"), ("pixtral", "llama-bpe"), ("llama3", "llama-bpe"),
        ("smaug-bpe", "dbrx"), ("llama4", "gpt-4o"), ("deepseek-r1-qwen", "qwen2"),
    ],
)  # fmt: skip
def test_names_that_converters_write_have_the_rules_of_a_family(name: str, pre: str) -> None:
    tokenizer = load_tokenizer("tiny_bpe", pre=name)
    for text, ids in load_golden(f"tiny_bpe_{pre}"):
        assert tokenizer.encode(text, add_special=False) == ids, text


def test_falcon_finds_digits_among_the_stand_ins_of_bytes() -> None:
    """The letter n of Russian is 0xD0 0xBD, whose second byte has the name of a half."""
    spec = with_pieces(load_spec("tiny_bpe", pre="falcon"), "\u00d0\u00bd")
    spec.merges.insert(0, "\u00d0 \u00bd")
    last = len(spec.tokens) - 1
    assert last not in Tokenizer.from_spec(spec).encode("\u043d", add_special=False)
    other = Tokenizer.from_spec(replace(spec, pre="gpt-2"))
    assert other.encode("\u043d", add_special=False) == [last]
