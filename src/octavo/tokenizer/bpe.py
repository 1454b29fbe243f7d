"""Byte-level BPE as a `tokenizers` document: the normalizer, the pre-tokenizer, the model.

Comes in: a `TokenizerSpec` of kind bpe. Goes out: the parts of a tokenizer.json. Adds no tokens,
reads no files. A byte that the vocabulary lacks (SmolLM2 has no token for U+0004, for one) is
dropped, as everywhere else.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

from octavo.errors import ModelFormatError
from octavo.tokenizer.pre_tokenizer import family, pre_tokenizer, takes_whole_words
from octavo.tokenizer.spec import TokenizerSpec


def composes(spec: TokenizerSpec) -> bool:
    """Whether characters are composed (NFC) first, as Qwen2's own tokenizer does."""
    if spec.kind != "bpe":
        return False
    return family(spec.pre) == "qwen2" if spec.composes is None else spec.composes


def ignores_merges(spec: TokenizerSpec) -> bool:
    """Whether a word that is itself a token is taken even where merges would not build it, as
    Llama 3 does."""
    if spec.ignore_merges is not None:
        return spec.ignore_merges
    return spec.kind == "bpe" and takes_whole_words(spec.pre)


def bpe_parts(spec: TokenizerSpec, vocab: dict[str, int]) -> dict[str, Any]:
    """The normalizer, pre-tokenizer and model of a tokenizer.json."""
    _check_merges(spec.merges or [], vocab)
    return {
        "normalizer": {"type": "NFC"} if composes(spec) else None,
        "pre_tokenizer": pre_tokenizer(spec.pre),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": ignores_merges(spec),
            "vocab": vocab,
            "merges": spec.merges,
        },
    }


def _check_merges(merges: Iterable[str], vocab: Container[str]) -> None:
    """`tokenizers` panics, which is no Exception, where a merge is longer than all tokens."""
    for merge in merges:
        if merge.replace(" ", "") not in vocab:
            raise ModelFormatError(
                f"the model's tokens and merges do not fit: {merge!r} makes no token that there is"
            )
