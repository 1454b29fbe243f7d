"""Tokenizer facts out of GGUF metadata: present, silent, missing and of the wrong kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.tokenizer.spec import TokenizerSpec
from octavo.weights import tokenizer_spec as module
from octavo.weights.gguf import GGUFFile
from octavo.weights.gguf_header import MetadataValue

Metadata = dict[str, MetadataValue]


def tokenizer_spec(metadata: Metadata, *notes: str) -> TokenizerSpec:
    """The spec, if exactly these notes are made of it."""
    noted: list[str] = []
    spec = module.tokenizer_spec(metadata, note=noted.append)
    assert noted == list(notes)
    return spec


def ids_of(spec: TokenizerSpec) -> list[int | None]:
    return [spec.bos_id, spec.eos_id, spec.unk_id, spec.eot_id, spec.pad_id]


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
    assert (spec.kind, spec.pre, spec.merges) == ("bpe", "smollm", ["a b"])
    assert spec.tokens == ["<s>", "a", "b", "ab"]
    assert spec.types == [3, 1, 1, 1]
    assert spec.scores is None
    assert (spec.add_bos, spec.add_eos, spec.add_space_prefix) == (False, False, False)
    assert ids_of(spec) == [None] * 5
    assert spec.chat_template is None


def test_a_silent_spm_file() -> None:
    spec = tokenizer_spec(spm())
    assert (spec.kind, spec.pre, spec.scores) == ("spm", "default", [0, 0, 0, -1.5])
    assert spec.merges is None
    assert (spec.add_bos, spec.add_eos, spec.add_space_prefix) == (True, False, True)
    assert ids_of(spec) == [1, 2, 0, None, None]


def test_llama_3_adds_bos_unless_told_not_to() -> None:
    for pre in ("llama-bpe", "falcon3", "tekken"):
        assert tokenizer_spec(bpe(pre=pre, bos_token_id=0)).add_bos
    assert not tokenizer_spec(bpe(pre="smaug-bpe", bos_token_id=0)).add_bos
    assert not tokenizer_spec(bpe(pre="llama-bpe", add_bos_token=False)).add_bos


def test_phi_3s_control_tokens_take_the_white_space_after_them() -> None:
    """As in its tokenizer.json: its template ends a turn with a line that is not there then."""
    tokens = ["<unk>", "<s>", "</s>", "a", "<|endoftext|>", "<|end|>"]
    kinds: Metadata = {"token_type": np.array([2, 3, 1, 1, 3, 3], np.int32), "scores": np.zeros(6)}
    metadata = spm(tokens=tokens, **kinds)
    assert tokenizer_spec(metadata).strip_right == frozenset()
    found = tokenizer_spec(metadata | {"general.architecture": "phi3"})
    assert found.strip_right == {2, 5}
    assert found.strip_left == frozenset()


def test_what_the_file_says_wins_over_every_default() -> None:
    ids: Metadata = {
        "bos_token_id": 3, "eos_token_id": 0, "unknown_token_id": 1,
        "eot_token_id": 2, "padding_token_id": 1,
    }  # fmt: skip
    flags: Metadata = {"add_bos_token": False, "add_eos_token": True, "add_space_prefix": False}
    spec = tokenizer_spec(spm(**ids, **flags) | {"tokenizer.chat_template": "{{ x }}"})
    assert ids_of(spec) == [3, 0, 1, 2, 1]
    assert (spec.add_bos, spec.add_eos, spec.add_space_prefix) == (False, True, False)
    assert spec.chat_template == "{{ x }}"


def test_named_templates_have_their_name_in_the_key() -> None:
    key = "tokenizer.chat_template"
    names: Metadata = {f"{key}s": ["tool_use"], f"{key}.tool_use": "tools", f"{key}.rag": " "}
    note = "metadata 'tokenizer.chat_template.rag' is blank: the model has no chat template"
    spec = tokenizer_spec(bpe() | {key: "x"} | names, note)
    assert (spec.chat_template, spec.named_templates) == ("x", {"tool_use": "tools"})
    with pytest.raises(ModelFormatError, match=r"chat_template\.rag': expected a string"):
        tokenizer_spec(bpe() | {f"{key}.rag": ["x"]})


def test_a_bpe_file_has_a_blank_in_front_of_bare_texts_only() -> None:
    spec = tokenizer_spec(bpe(add_space_prefix=True))
    assert (spec.add_space_prefix, spec.prefix_bare_only) == (True, True)
    assert not tokenizer_spec(spm()).prefix_bare_only


def test_a_blank_template_is_none() -> None:
    note = "metadata 'tokenizer.chat_template' is blank: the model has no chat template"
    for blank in ("", " \n"):
        spec = tokenizer_spec(bpe() | {"tokenizer.chat_template": blank}, note)
        assert spec.chat_template is None


@pytest.mark.parametrize(
    ("metadata", "key"),
    [(bpe(), key) for key in ("model", "tokens", "merges")] + [(spm(), "scores")],
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
        (spm(scores=["0"] * 4), r"ggml\.scores': .* numbers, found an array of 4 str"),
        (bpe(bos_token_id=4, add_bos_token=True), "asks for a BOS token but names none"),
        (bpe(add_bos_token=1), r"ggml\.add_bos_token': expected true or false, found 1"),
        (bpe() | {"tokenizer.chat_template": ["x"]}, r"chat_template': expected a string"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(metadata: Metadata, message: str) -> None:
    with pytest.raises(ModelFormatError, match=message):
        tokenizer_spec(metadata)


@pytest.mark.parametrize("value", [4, -1, 2**32 - 1, "1", True, 0.5, float("nan")])
@pytest.mark.parametrize("name", ["bos", "eos", "unknown", "eot", "padding"])
def test_an_id_that_cannot_be_one_is_noted_and_left_out(name: str, value: MetadataValue) -> None:
    """It used to keep the model from loading, though nothing needed the id."""
    key = f"tokenizer.ggml.{name}_token_id"
    why = f"metadata {key!r} is {value!r}, no id in a vocabulary of 4 tokens"
    spec = tokenizer_spec(bpe() | {key: value}, f"{why}: it is left out")
    assert ids_of(spec) == [None] * 5
    usual = {"bos": 1, "eos": 2, "unknown": 0}.get(name)  # as llama.cpp goes on
    instead = "it is left out" if usual is None else f"{usual} is used"
    spec = tokenizer_spec(spm() | {key: value}, f"{why}: {instead}")
    assert ids_of(spec) == [1, 2, 0, None, None]


def test_an_id_may_be_a_whole_float_and_scores_may_be_integers() -> None:
    assert tokenizer_spec(bpe(eos_token_id=2.0)).eos_id == 2
    assert tokenizer_spec(spm(scores=np.array([0, 0, 0, -1], np.int32))).scores == [0, 0, 0, -1]


def test_a_file_without_types_has_text_and_in_spm_bytes_by_their_names() -> None:
    note = "metadata has no 'tokenizer.ggml.token_type': tokens are told apart by their names"
    bare = bpe(tokens=["<s>", "a", "b", "<0x0A>"])
    del bare["tokenizer.ggml.token_type"]
    assert tokenizer_spec(bare, note).types == [1, 1, 1, 1]
    bare = spm(tokens=["<unk>", "<s>", "</s>", "<0x0A>"])
    del bare["tokenizer.ggml.token_type"]
    assert tokenizer_spec(bare, note).types == [1, 1, 1, 6]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("remove_extra_whitespaces", True, "is True: Octavo's tokenizers do not remove blanks"),
        ("add_sep_token", True, "is True: Octavo's tokenizers do not add separators"),
        ("normalizer.lowercase", True, "do not put texts in lower case"),
        ("normalizer.strip_accents", True, "do not strip accents"),
        ("precompiled_charsmap", np.zeros(9, np.uint8), "is an array of 9 uint8: .* replace char"),
        ("suppress_tokens", np.array([3]), "is an array of 1 int64: .* do not forbid tokens, and"),
    ],
)
def test_what_would_change_the_tokens_is_refused_by_name(
    name: str, value: MetadataValue, message: str
) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"ggml\.{name}' .*{message}"):
        tokenizer_spec(spm() | {PREFIX + name: value})
    nothing = np.zeros(0, np.uint8) if isinstance(value, np.ndarray) else False
    assert tokenizer_spec(spm() | {PREFIX + name: nothing}).types == [2, 3, 3, 1]


def test_a_tokenizer_of_another_kind_is_not_supported() -> None:
    with pytest.raises(UnsupportedModelError, match=r"is 'bert'; Octavo reads 'gpt2', 'llama'"):
        tokenizer_spec(bpe(model="bert"))


def test_gemma_4_is_spm_by_merges_and_its_scores_mean_nothing() -> None:
    scored = spm(model="gemma4") | {PREFIX + "merges": ["a b"]}
    spec = tokenizer_spec(scored)
    assert (spec.kind, spec.merges, spec.scores) == ("spm", ["a b"], None)
    silent = {key: value for key, value in scored.items() if key != PREFIX + "scores"}
    assert tokenizer_spec(silent).add_bos
    with pytest.raises(ModelFormatError, match=r"ggml\.merges'"):
        tokenizer_spec(spm(model="gemma4"))


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
