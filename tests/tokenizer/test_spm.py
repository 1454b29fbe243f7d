"""SPM: ids equal sentencepiece's on a model rebuilt from the spec, runs of equal pieces too."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.tokenizer import Tokenizer, TokenizerSpec
from tests.tokenizer.fixture_specs import load_golden, load_spec
from tests.tokenizer.sentencepiece_oracle import processor

SPECS = {
    "tiny_spm": load_spec("tiny_spm"),
    "tiny_spm_prefix": load_spec("tiny_spm", add_space_prefix=True),
}
TOKENIZERS = {name: Tokenizer.from_spec(spec) for name, spec in SPECS.items()}
ORACLES = {name: processor(spec) for name, spec in SPECS.items()}
both = pytest.mark.parametrize("name", SPECS)
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
RUNS = st.lists(
    st.tuples(st.sampled_from([*"abnh \n\t-=.0猫頁", "an", "ha", "<tool>"]), st.integers(1, 12)),
    max_size=8,
).map(lambda runs: "".join(piece * count for piece, count in runs))


@both
def test_ids_of_naughty_texts_equal_the_golden_ids_and_the_texts_come_back(name: str) -> None:
    for text, ids in load_golden(name):
        assert TOKENIZERS[name].encode(text, add_special=False) == ids, text
        assert_comes_back(name, text)


def assert_comes_back(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    blank = text.replace("\u2581", " ")  # the piece character is a blank to SPM
    assert tokenizer.decode(tokenizer.encode(text)) == blank


@both
@given(text=ANY_TEXT | RUNS)
def test_ids_equal_sentencepiece_and_text_comes_back(name: str, text: str) -> None:
    assert TOKENIZERS[name].encode(text, add_special=False) == ORACLES[name].encode(text)
    assert_comes_back(name, text)


@pytest.mark.parametrize("seed", range(8))
def test_ids_equal_sentencepiece_whatever_the_scores(seed: int) -> None:
    """Scores of trained pieces fall with length; random ones do not, and make joins compete."""
    rng = random.Random(seed)
    spec = random_spec(rng)
    tokenizer, oracle = Tokenizer.from_spec(spec), processor(spec)
    for _ in range(300):
        text = "".join(rng.choice("ab") for _ in range(rng.randint(1, 24)))
        assert tokenizer.encode(text, add_special=False) == oracle.encode(text), text


def random_spec(rng: random.Random) -> TokenizerSpec:
    """25 pieces over two letters, each made of two others, in random order of score."""
    tokens = ["<unk>", "<s>", "</s>", "a", "b"]
    while len(tokens) < 25:
        piece = rng.choice(tokens[3:]) + rng.choice(tokens[3:])
        if piece not in tokens and len(piece) < 8:
            tokens.append(piece)
    scores = [0.0, 0.0, 0.0, -100.0, -101.0, *map(float, rng.sample(range(20), 20))]
    types = [2, 3, 3] + [1] * 22
    return TokenizerSpec("spm", "default", tokens, types, scores, bos_id=1, eos_id=2, unk_id=0)


def test_unknown_characters_become_one_unk_without_byte_pieces() -> None:
    spec = random_spec(random.Random(1))
    assert Tokenizer.from_spec(spec).encode("猫猫a", add_special=False) == [0, 3]
    assert processor(spec).encode("猫猫a") == [0, 3]


def test_unknown_characters_fall_back_to_bytes() -> None:
    tokenizer = TOKENIZERS["tiny_spm"]
    ids = tokenizer.encode("鯨", add_special=False)
    assert [tokenizer.spec.tokens[i] for i in ids] == ["<0xE9>", "<0xAF>", "<0xA8>"]
    assert tokenizer.decode(ids) == "鯨"


def test_user_defined_runs_are_taken_longest_first() -> None:
    tokenizer = TOKENIZERS["tiny_spm"]
    ids = tokenizer.encode("\n" * 5 + " " * 7 + "x", add_special=False)
    pieces = [tokenizer.spec.tokens[i] for i in ids]
    assert pieces == ["\n\n\n", "\n\n", "    ", "   ", "x"]


def test_the_blank_in_front_is_added_once_and_taken_off_again() -> None:
    plain, prefixed = TOKENIZERS["tiny_spm"], TOKENIZERS["tiny_spm_prefix"]
    assert prefixed.encode("page") == plain.encode(" page") != plain.encode("page")
    assert prefixed.decode(prefixed.encode("page")) == "page"
    assert prefixed.decode(prefixed.encode(" page")) == " page"
    assert prefixed.decode(prefixed.encode("page"), continuation=True) == " page"
    assert prefixed.encode("", add_special=False) == []


def test_typed_byte_and_control_names_are_plain_text() -> None:
    tokenizer = TOKENIZERS["tiny_spm"]
    ids = tokenizer.encode("<0x41><s><unk><|end|>", add_special=False)
    assert ids == ORACLES["tiny_spm"].encode("<0x41><s><unk><|end|>")
    assert {tokenizer.spec.types[i] for i in ids} <= {1, 6}
