"""Which files of a repository are a model, and what is said where that is not clear."""

from __future__ import annotations

import pytest

from octavo.errors import (
    ModelFormatError,
    ModelNotFoundError,
    OctavoError,
    UnsupportedModelError,
    UsageError,
)
from octavo.weights.hub.choice import directory_files, gguf_files
from octavo.weights.hub.name import parse

MIB = 2**20
TWO = {"t-Q4_K_M.gguf": 3 * MIB, "t-Q8_0.gguf": 5 * MIB + MIB // 2, "mmproj-t.gguf": 9 * MIB}
PARTS = {f"q/t-0000{n}-of-00003.gguf": n * MIB for n in (1, 2, 3)}
WHOLE = {"config.json": 1, "model.safetensors": 1}


def chosen(text: str, sizes: dict[str, int]) -> tuple[str, ...]:
    return gguf_files(parse(text), sizes)


def test_a_directory_wins_unless_a_gguf_file_is_named() -> None:
    assert chosen("hf:a/b", WHOLE | TWO) == ()
    assert chosen("hf:a/b:t-Q8_0.gguf", WHOLE | TWO) == ("t-Q8_0.gguf",)


def test_the_only_gguf_model_needs_no_name() -> None:
    only = {"t.gguf": 1, "mmproj-F16.gguf": 1, "imatrix_unsloth.gguf": 1, "config.json": 1}
    assert chosen("hf:a/b", only) == ("t.gguf",)


def test_any_part_brings_all_the_first_one_first() -> None:
    assert chosen("hf:a/b", PARTS) == tuple(PARTS)
    assert chosen("hf:a/b:q/t-00002-of-00003.gguf", PARTS | TWO) == tuple(PARTS)


def test_of_several_one_must_be_named() -> None:
    with pytest.raises(UsageError) as error:
        chosen("hf:a/b@v1", TWO | PARTS)
    assert str(error.value) == (
        "hf:a/b@v1 has 3 GGUF models; give one as hf:a/b@v1:FILE: q/t-00001-of-00003.gguf "
        "(6.0 MiB), t-Q4_K_M.gguf (3.0 MiB), t-Q8_0.gguf (5.5 MiB)"
    )


@pytest.mark.parametrize(
    ("text", "sizes", "kind", "said"),
    [
        ("hf:a/b:Q4_k_m", TWO, ModelNotFoundError, "no file 'Q4_k_m' in a/b; did you mean t-Q4_K_"),
        ("hf:a/b:t-Q8-0.gguf", TWO, ModelNotFoundError, r"did you mean t-Q8_0\.gguf"),
        ("hf:a/b:zzz", TWO, ModelNotFoundError, r"it has t-Q4_K_M\.gguf, t-Q8_0\.gguf, mmproj-t"),
        ("hf:a/b:x.gguf", WHOLE, ModelNotFoundError, "in a/b; it has no GGUF file"),
        ("hf:a/b:config.json", WHOLE, UsageError, "config.json is no GGUF file; leave it out for"),
        ("hf:a/b", {"README.md": 1}, UnsupportedModelError, "has no model.safetensors, no .* and"),
        (
            *("hf:a/b", {"config.json": 1, "pytorch_model.bin": 1}, UnsupportedModelError),
            "in pytorch_model.bin: convert them to safetensors",
        ),
        (
            *("hf:a/b", {"adapter_config.json": 1, "adapter_model.safetensors": 1}),
            *(UnsupportedModelError, "hf:a/b is a LoRA adapter"),
        ),
        (
            *("hf:a/b", {"t-00001-of-00002.gguf": 1}, ModelFormatError),
            "hf:a/b: t-00002-of-00002.gguf is missing in a/b",
        ),
    ],
)
def test_what_is_no_model_is_refused(
    text: str, sizes: dict[str, int], kind: type[OctavoError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        chosen(text, sizes)


def test_a_directory_is_its_small_files_and_no_others() -> None:
    beside = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
    templates = ("chat_template.jinja", "chat_template.json")
    index = "model.safetensors.index.json"
    others = ("README.md", "vocab.json", "merges.txt", "pytorch_model.bin", "x/config.json")
    sizes = dict.fromkeys((*others, *beside, *templates, index, "tokenizer.model"), 1)
    assert directory_files(sizes) == (*beside, *templates, index)
    both = directory_files({"model.safetensors": 1, index: 1, "config.json": 1})
    assert both == ("config.json",)  # the whole file is what others read
    assert directory_files({"config.json": 1, "tokenizer.model": 1})[-1] == "tokenizer.model"
