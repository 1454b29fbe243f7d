"""Byte-level BPE by `tokenizers`: the normalizer, the pre-tokenizer, the model.

Comes in: a `TokenizerSpec` of kind bpe. Goes out: a tokenizer that has no added tokens. Reads no
files. A byte that the vocabulary lacks (SmolLM2 has no token for U+0004, for one) is dropped, as
everywhere else.
"""

from __future__ import annotations

import tokenizers

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


def plain_tokenizer(
    spec: TokenizerSpec, vocab: dict[str, int], merges: list[tuple[str, str]]
) -> tokenizers.Tokenizer:
    """Make a tokenizer of these names and merges."""
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab, merges, ignore_merges=ignores_merges(spec))
    )
    if composes(spec):
        tokenizer.normalizer = tokenizers.normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizer(spec.pre)
    return tokenizer
