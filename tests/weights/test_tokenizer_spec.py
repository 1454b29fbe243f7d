"""Tokenizer facts out of GGUF metadata: present, silent, missing and of the wrong kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.weights.gguf import GGUFFile
from octavo.weights.gguf_header import MetadataValue
from octavo.weights.tokenizer_spec import tokenizer_spec

Metadata = dict[str, MetadataValue]
PREFIX = "tokenizer.ggml."


def bpe(**fields: MetadataValue) -> Metadata:
    base: Metadata = {
        "model": "gpt2",
        "pre": "smollm",
        "tokens": ["<s>", "a", "b", "ab"],
        "token_type": np.array([3, 1, 1, 1], np.int32),
        "merges": ["a b"],
    }
    return {PREFIX + key: value for key, value in (base | fields).items()}


def spm(**fields: MetadataValue) -> Metadata:
    base: Metadata = {
        "model": "llama",
        "tokens": ["<unk>", "<s>", "</s>", "▁a"],
        "token_type": np.array([2, 3, 3, 1], np.int32),
        "scores": np.array([0, 0, 0, -1.5], np.float32),
    }
    return {PREFIX + key: value for key, value in (base | fields).items()}


def test_a_silent_bpe_file() -> None:
    spec = tokenizer_spec(bpe())
    assert (spec.kind, spec.pre, spec.tokens, spec.merges) == (
        "bpe", "smollm", ["<s>", "a", "b", "ab"], ["a b"],
    )  # fmt: skip
    assert spec.types == [3, 1, 1, 1]
    assert spec.scores is None
    assert (spec.add_bos, spec.add_eos, spec.add_space_prefix) == (False, False, False)
    assert (spec.bos_id, spec.eos_id, spec.unk_id, spec.eot_id, spec.pad_id) == (None,) * 5
    assert spec.chat_template is None


def test_a_silent_spm_file() -> None:
    spec = tokenizer_spec(spm())
    assert (spec.kind, spec.pre, spec.scores) == ("spm", "default", [0, 0, 0, -1.5])
    assert spec.merges is None
    assert (spec.add_bos, spec.add_eos, spec.add_space_prefix) == (True, False, True)
    assert (spec.bos_id, spec.eos_id, spec.unk_id, spec.eot_id, spec.pad_id) == (
        1, 2, 0, None, None,
    )  # fmt: skip


def test_llama_3_adds_bos_unless_told_not_to() -> None:
    assert tokenizer_spec(bpe(pre="llama-bpe", bos_token_id=0)).add_bos
    assert not tokenizer_spec(bpe(pre="llama-bpe", add_bos_token=False)).add_bos


def test_what_the_file_says_wins_over_every_default() -> None:
    ids: Metadata = {
        "bos_token_id": 3, "eos_token_id": 0, "unknown_token_id": 1,
        "eot_token_id": 2, "padding_token_id": 1,
    }  # fmt: skip
    flags: Metadata = {"add_bos_token": False, "add_eos_token": True, "add_space_prefix": False}
    spec = tokenizer_spec(spm(**ids, **flags) | {"tokenizer.chat_template": "{{ x }}"})
    assert (spec.bos_id, spec.eos_id, spec.unk_id, spec.eot_id, spec.pad_id) == (3, 0, 1, 2, 1)
    assert (spec.add_bos, spec.add_eos, spec.add_space_prefix) == (False, True, False)
    assert spec.chat_template == "{{ x }}"


@pytest.mark.parametrize(
    ("metadata", "key"),
    [(bpe(), key) for key in ("model", "tokens", "token_type", "merges")] + [(spm(), "scores")],
)
def test_a_missing_key_is_named(metadata: Metadata, key: str) -> None:
    del metadata[PREFIX + key]
    with pytest.raises(ModelFormatError, match=rf"metadata has no 'tokenizer\.ggml\.{key}'"):
        tokenizer_spec(metadata)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (bpe(model=3), r"ggml\.model': expected a string, found 3"),
        (bpe(tokens=np.zeros(4)), r"ggml\.tokens': .* strings, found an array of 4 float64"),
        (bpe(merges="a b"), r"ggml\.merges': expected an array of strings, found 'a b'"),
        (bpe(token_type=["1"] * 4), r"ggml\.token_type': .* integers, found an array of 4 str"),
        (bpe(token_type=np.zeros(3, np.int32)), r"token_types has 3 entries for 4 tokens"),
        (spm(scores=np.zeros(4, np.int32)), r"ggml\.scores': .* floats, found an array of 4 int32"),
        (bpe(bos_token_id="1"), r"ggml\.bos_token_id': expected a token id, found '1'"),
        (bpe(eos_token_id=True), r"ggml\.eos_token_id': expected a token id, found True"),
        (bpe(eos_token_id=4), r"eos_id is 4, outside the vocabulary of 4"),
        (bpe(add_bos_token=1), r"ggml\.add_bos_token': expected true or false, found 1"),
        (bpe() | {"tokenizer.chat_template": ["x"]}, r"chat_template': expected a string"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(metadata: Metadata, message: str) -> None:
    with pytest.raises(ModelFormatError, match=message):
        tokenizer_spec(metadata)


def test_a_tokenizer_of_another_kind_is_not_supported() -> None:
    with pytest.raises(UnsupportedModelError, match=r"is 'bert'; Octavo reads 'gpt2', 'llama'"):
        tokenizer_spec(bpe(model="bert"))


def test_smollm2(smollm2_path: Path) -> None:
    with GGUFFile.open(smollm2_path) as file:
        spec = tokenizer_spec(file.metadata)
    assert (spec.kind, spec.pre, len(spec.tokens)) == ("bpe", "smollm", 49_152)
    assert spec.merges is not None
    assert spec.merges[0] == "Ġ t"
    assert (spec.bos_id, spec.eos_id, spec.unk_id, spec.pad_id) == (1, 2, 0, 2)
    assert not spec.add_bos
    assert spec.chat_template is not None
    assert spec.tokens[1] == "<|im_start|>"
