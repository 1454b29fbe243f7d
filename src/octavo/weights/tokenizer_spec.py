"""From GGUF metadata to a `TokenizerSpec`: which key is which field, and what silence means.

Silence means what it means to llama.cpp, because files were made and tried against it.
Knows keys and defaults; the spec checks itself, and how text is split is the tokenizer's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np

from octavo.errors import ModelFormatError, UnsupportedModelError, counted
from octavo.tokenizer.pre_tokenizer import adds_bos
from octavo.tokenizer.spec import TokenizerSpec, TokenType
from octavo.values import is_whole
from octavo.weights.gguf_header import MetadataValue
from octavo.weights.gguf_keys import shown

Metadata = Mapping[str, MetadataValue]
Note = Callable[[str], None]

_KINDS: Mapping[str, Literal["bpe", "spm"]] = MappingProxyType(
    {"gpt2": "bpe", "llama": "spm", "gemma4": "spm"}
)
_WITH_MERGES = frozenset({"gpt2", "gemma4"})  # whose scores, if there are any, mean nothing
_TEMPLATE = "tokenizer.chat_template"  # named ones have their name behind it
_SPM_IDS = MappingProxyType({"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0})

# Phi-3's control tokens that leave the white space after them alone.
_PHI3_BARE = frozenset({"<unk>", "<s>", "<|endoftext|>"})

# What the tokenizers here do not do to a text, by the key that asks for it.
_NOT_DONE: Mapping[str, str] = MappingProxyType(
    {
        "add_sep_token": "add separators",
        "normalizer.lowercase": "put texts in lower case",
        "normalizer.strip_accents": "strip accents",
        "precompiled_charsmap": "replace characters",
        "remove_extra_whitespaces": "remove blanks",
        "suppress_tokens": "forbid tokens",
    }
)


def tokenizer_spec(metadata: Metadata, *, note: Note) -> TokenizerSpec:
    """The tokenizer that a GGUF file's metadata describes.

    `note` is told what is wrong and left out, because nothing needs it.
    """
    model = _string(metadata, "model")
    if model not in _KINDS:
        raise UnsupportedModelError(
            f"tokenizer.ggml.model is {model!r}; Octavo reads {', '.join(map(repr, _KINDS))}"
        )
    _refuse_what_is_not_done(metadata)
    kind = _KINDS[model]
    spm = kind == "spm"
    pre = _string(metadata, "pre", default="default")
    tokens = _strings(metadata, "tokens")

    types = _types(metadata, tokens, spm, note)

    def token_id(name: str) -> int | None:
        return _id(metadata, name, len(tokens), _SPM_IDS.get(name) if spm else None, note)

    return TokenizerSpec(
        kind=kind,
        pre=pre,
        tokens=tokens,
        token_types=types,
        scores=None
        if model in _WITH_MERGES
        else _numbers(metadata, "scores", "fiu").astype(np.float64).tolist(),
        merges=_strings(metadata, "merges") if model in _WITH_MERGES else None,
        bos_id=token_id("bos_token_id"),
        eos_id=token_id("eos_token_id"),
        unk_id=token_id("unknown_token_id"),
        eot_id=token_id("eot_token_id"),
        pad_id=token_id("padding_token_id"),
        add_bos=_flag(metadata, "add_bos_token", default=spm or adds_bos(pre)),
        add_eos=_flag(metadata, "add_eos_token", default=False),
        add_space_prefix=_flag(metadata, "add_space_prefix", default=spm),
        prefix_bare_only=not spm,  # as the byte-level part of a tokenizer.json does it
        chat_template=_chat_template(metadata, _TEMPLATE, note),
        named_templates=_named_templates(metadata, note),
        strip_right=_strip_right(metadata, tokens, types) if spm else frozenset(),
    )


def _strip_right(metadata: Metadata, tokens: list[str], types: np.ndarray) -> frozenset[int]:
    """Control tokens that take the white space after them. GGUF has no field for it: they are those
    of Phi-3's own tokenizer.json, most of which its chat template writes with a line's end."""
    if metadata.get("general.architecture") != "phi3":
        return frozenset()
    control = {tokens[i] for i in np.flatnonzero(types == TokenType.CONTROL)} | {"</s>"}
    return frozenset(i for i, name in enumerate(tokens) if name in control - _PHI3_BARE)


def _refuse_what_is_not_done(metadata: Metadata) -> None:
    for name, what in _NOT_DONE.items():
        key = f"tokenizer.ggml.{name}"
        value = metadata.get(key)
        if len(value) if isinstance(value, np.ndarray | list) else value:
            raise UnsupportedModelError(
                f"metadata {key!r} is {shown(value)}: Octavo's tokenizers do not {what}, and "
                "leaving it out would change the tokens"
            )


def _refuse(key: str, expected: str, found: object) -> ModelFormatError:
    if found is None:
        return ModelFormatError(f"metadata has no {key!r}: expected {expected}")
    return ModelFormatError(f"metadata {key!r}: expected {expected}, found {shown(found)}")


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
        raise _refuse(key, "an array of " + ("numbers" if "f" in kinds else "integers"), value)
    return value


def _types(metadata: Metadata, tokens: list[str], spm: bool, note: Note) -> np.ndarray:
    """(num_tokens,) int32. Without types the names tell bytes from text."""
    if "tokenizer.ggml.token_type" in metadata:
        return _numbers(metadata, "token_type", "iu").astype(np.int32)
    note("metadata has no 'tokenizer.ggml.token_type': tokens are told apart by their names")
    types = np.full(len(tokens), TokenType.NORMAL, np.int32)
    if spm:
        types[[re.fullmatch("<0x[0-9A-F]{2}>", t) is not None for t in tokens]] = TokenType.BYTE
    return types


def _id(metadata: Metadata, name: str, size: int, default: int | None, note: Note) -> int | None:
    """The id at `name`; what cannot be one is noted and left out. llama.cpp writes -1 for none."""
    key = f"tokenizer.ggml.{name}"
    if key not in metadata:
        return default
    value = metadata[key]
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    if is_whole(whole) and 0 <= whole < size:
        return whole
    instead = "it is left out" if default is None else f"{default} is used"
    tokens = counted(size, "token")
    note(f"metadata {key!r} is {shown(value)}, no id in a vocabulary of {tokens}: {instead}")
    return default


def _flag(metadata: Metadata, name: str, *, default: bool) -> bool:
    key = f"tokenizer.ggml.{name}"
    value = metadata.get(key, default)
    if not isinstance(value, bool):
        raise _refuse(key, "true or false", value)
    return value


def _named_templates(metadata: Metadata, note: Note) -> dict[str, str]:
    prefix = f"{_TEMPLATE}."
    names = [key.removeprefix(prefix) for key in metadata if key.startswith(prefix)]
    found = {name: _chat_template(metadata, prefix + name, note) for name in names}
    return {name: text for name, text in found.items() if text is not None}


def _chat_template(metadata: Metadata, key: str, note: Note) -> str | None:
    value = metadata.get(key)
    if value is not None and not isinstance(value, str):
        raise _refuse(key, "a string", value)
    if value is None or value.strip():
        return value
    note(f"metadata {key!r} is blank: the model has no chat template")
    return None
