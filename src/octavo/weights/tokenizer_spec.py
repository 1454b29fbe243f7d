"""From GGUF metadata to a `TokenizerSpec`: which key is which field, and what silence means.

Silence means what it means to llama.cpp, because files were made and tried against it.
Knows keys and defaults; the spec checks itself, and how text is split is the tokenizer's.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np

from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.tokenizer.spec import TokenizerSpec
from octavo.weights.gguf_header import MetadataValue

Metadata = Mapping[str, MetadataValue]

_KINDS: Mapping[str, Literal["bpe", "spm"]] = MappingProxyType({"gpt2": "bpe", "llama": "spm"})
_SPM_IDS = MappingProxyType({"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0})

# Byte-level BPE adds no BOS unless told, except for the pre-tokenizers of Llama 3.
_BOS_BY_DEFAULT = frozenset({"llama-bpe", "llama-v3", "llama3"})


def tokenizer_spec(metadata: Metadata) -> TokenizerSpec:
    """The tokenizer that a GGUF file's metadata describes."""
    model = _string(metadata, "model")
    if model not in _KINDS:
        raise UnsupportedModelError(
            f"tokenizer.ggml.model is {model!r}; Octavo reads {', '.join(map(repr, _KINDS))}"
        )
    kind = _KINDS[model]
    pre = _string(metadata, "pre", default="default")
    defaults = _SPM_IDS if kind == "spm" else {}
    spm = kind == "spm"
    return TokenizerSpec(
        kind=kind,
        pre=pre,
        tokens=_strings(metadata, "tokens"),
        token_types=_numbers(metadata, "token_type", "iu").astype(np.int32),
        scores=_numbers(metadata, "scores", "f").tolist() if spm else None,
        merges=None if spm else _strings(metadata, "merges"),
        bos_id=_id(metadata, "bos_token_id", defaults),
        eos_id=_id(metadata, "eos_token_id", defaults),
        unk_id=_id(metadata, "unknown_token_id", defaults),
        eot_id=_id(metadata, "eot_token_id", defaults),
        pad_id=_id(metadata, "padding_token_id", defaults),
        add_bos=_flag(metadata, "add_bos_token", default=spm or pre in _BOS_BY_DEFAULT),
        add_eos=_flag(metadata, "add_eos_token", default=False),
        add_space_prefix=_flag(metadata, "add_space_prefix", default=spm),
        chat_template=_chat_template(metadata),
    )


def _refuse(key: str, expected: str, found: object) -> ModelFormatError:
    if found is None:
        return ModelFormatError(f"metadata has no {key!r}: expected {expected}")
    return ModelFormatError(f"metadata {key!r}: expected {expected}, found {_describe(found)}")


def _describe(found: object) -> str:
    if isinstance(found, list | np.ndarray):
        return f"an array of {len(found)} {found.dtype if isinstance(found, np.ndarray) else 'str'}"
    return repr(found)[:80]


def _string(metadata: Metadata, name: str, default: str | None = None) -> str:
    key = f"tokenizer.ggml.{name}"
    value = metadata.get(key, default)
    if not isinstance(value, str):
        raise _refuse(key, "a string", value)
    return value


def _strings(metadata: Metadata, name: str) -> list[str]:
    key = f"tokenizer.ggml.{name}"
    value = metadata.get(key)
    if not isinstance(value, list):
        raise _refuse(key, "an array of strings", value)
    return value


def _numbers(metadata: Metadata, name: str, kinds: str) -> np.ndarray:
    """The array at `name`, whose numpy dtype kind is one of `kinds`."""
    key = f"tokenizer.ggml.{name}"
    value = metadata.get(key)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in kinds:
        raise _refuse(key, "an array of " + ("floats" if kinds == "f" else "integers"), value)
    return value


def _id(metadata: Metadata, name: str, defaults: Mapping[str, int]) -> int | None:
    key = f"tokenizer.ggml.{name}"
    value = metadata.get(key, defaults.get(name))
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise _refuse(key, "a token id", value)
    return value


def _flag(metadata: Metadata, name: str, *, default: bool) -> bool:
    key = f"tokenizer.ggml.{name}"
    value = metadata.get(key, default)
    if not isinstance(value, bool):
        raise _refuse(key, "true or false", value)
    return value


def _chat_template(metadata: Metadata) -> str | None:
    value = metadata.get("tokenizer.chat_template")
    if value is not None and not isinstance(value, str):
        raise _refuse("tokenizer.chat_template", "a string", value)
    return value
