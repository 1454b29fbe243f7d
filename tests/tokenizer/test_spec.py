"""Specs that cannot be right are refused with what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.tokenizer import Tokenizer
from tests.tokenizer.fixture_specs import load_spec, load_tokenizer, with_pieces


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("tiny_bpe", {"merges": None}, "needs merges"),
        ("tiny_spm", {"scores": None}, "needs scores"),
        ("tiny_spm", {"scores": [0.0]}, "scores has 1 entries for 700 tokens"),
        ("tiny_spm", {"token_types": [1, 1]}, "token_types has 2 entries for 700 tokens"),
        ("tiny_spm", {"eos_id": 700}, "eos_id is 700, outside the vocabulary of 700"),
        ("tiny_spm", {"eot_id": -1}, "eot_id is -1"),
        ("tiny_spm", {"bos_id": None}, "asks for a BOS token but names none"),
        ("tiny_bpe", {"add_eos": True, "eos_id": None}, "asks for an EOS token but names none"),
    ],
)
def test_a_spec_that_contradicts_itself_is_a_broken_model(
    name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelFormatError, match=message):
        load_spec(name, **changes)


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedModelError, match="'wpm' is not supported"):
        load_spec("tiny_bpe", kind="wpm")


def test_an_end_token_of_normal_type_counts_as_control_unless_merges_build_it() -> None:
    spec = load_spec("tiny_spm")
    page = spec.tokens.index("page")
    typed_normal = [1 if i == spec.eos_id else kind for i, kind in enumerate(spec.types)]
    assert spec.eos_id in load_spec("tiny_spm", token_types=typed_normal).control_ids
    assert page in load_spec("tiny_spm", eot_id=page).control_ids
    bpe = load_spec("tiny_bpe")
    comma, the = bpe.tokens.index(","), bpe.tokens.index("\u0120the")
    assert load_spec("tiny_bpe", bos_id=comma, eot_id=the).control_ids == {0, 1, 2}


def test_types_may_be_an_array_or_a_list() -> None:
    spec = load_spec("tiny_bpe")
    array = load_spec("tiny_bpe", token_types=np.array(spec.token_types, dtype=np.int32))
    assert array.digest("") == spec.digest("")
    assert array.types == spec.types


NO_BYTE = r"token \d+ is of type BYTE: expected a name such as <0x0A>, found "
BYTE_NAMES = {n: NO_BYTE + repr(n) for n in ("<0xZZ>", "0x41", "<0x041>", "<0x4>", "", "é", "AB")}
BYTE_NAMES["<0x42>"] = "two tokens of type BYTE stand for the same byte"


@pytest.mark.parametrize(("name", "message"), BYTE_NAMES.items())
def test_a_byte_token_whose_name_is_no_byte_or_anothers_is_refused_at_load(
    name: str, message: str
) -> None:
    tokens = load_spec("tiny_spm").tokens
    tokens[tokens.index("<0x41>")] = name
    with pytest.raises(ModelFormatError, match=message):
        load_spec("tiny_spm", tokens=tokens)


@pytest.mark.parametrize(("name", "odd"), [("A", True), ("<0x41", True), ("<0x4a>", False)])
def test_a_byte_token_that_can_mean_one_byte_only_is_that_byte(
    name: str, odd: bool, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = load_spec("tiny_spm").tokens
    here = tokens.index("<0x4A>" if name == "<0x4a>" else "<0x41>")
    tokens[here] = name
    # without the letters themselves, which are the way to the byte
    others = {"A": "gone", "J": "gone too"}
    tokens = [t if i == here else others.get(t, t) for i, t in enumerate(tokens)]
    tokenizer = load_tokenizer("tiny_spm", tokens=tokens)
    letter = "J" if name == "<0x4a>" else "A"
    assert tokenizer.encode(letter, add_special=False) == [here]
    assert tokenizer.decode([here]) == letter
    note = f"bytes that are not named so: token {here} ({name!r}) is taken for 0x41"
    assert caplog.messages == [f"the model's file has {note}"] * odd


@pytest.mark.parametrize("name", ["tiny_bpe", "tiny_spm"])
def test_two_tokens_of_one_name_are_refused_where_the_tokenizer_is_built(name: str) -> None:
    spec = load_spec(name)
    at = len(spec.tokens)
    with pytest.raises(ModelFormatError, match=f"tokens {at} and {at + 1} are both 'same'"):
        Tokenizer.from_spec(with_pieces(spec, "same", "same"))
    nameless = Tokenizer.from_spec(with_pieces(spec, "", ""))
    assert nameless.decode([at, at + 1]) == ""
