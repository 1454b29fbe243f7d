"""Byte-level BPE as a `tokenizers` document: which pre-tokenizer a name means, and the model part.

Comes in: a `TokenizerSpec` of kind bpe. Goes out: the parts of a tokenizer.json. Adds no tokens,
reads no files. A byte that the vocabulary lacks (SmolLM2 has no token for U+0004, for one) is
dropped, as everywhere else.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.tokenizer.spec import TokenizerSpec

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_PUNCTUATION_AND_SPACE = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_PUNCTUATION_AND_SPACE}"
_QWEN2 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_PUNCTUATION_AND_SPACE}"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# The rules of each family: expressions that cut a text one after the other.
_SPLITS = {
    "gpt-2": (GPT2,),
    "smollm": (r"\p{N}", GPT2),
    "llama-bpe": (_LLAMA3,),
    "qwen2": (_QWEN2,),
    # what llama.cpp does with files whose converter did not know the model
    "default": (r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", r"[0-9]{3}"),
}

# names that models use for the same rules
_FAMILY = {
    "default": "default",
    "gpt-2": "gpt-2",
    "olmo": "gpt-2",
    "mpt": "gpt-2",
    "smollm": "smollm",
    "starcoder": "smollm",
    "refact": "smollm",
    "command-r": "smollm",
    "codeshell": "smollm",
    "llama-bpe": "llama-bpe",
    "llama3": "llama-bpe",
    "llama-v3": "llama-bpe",
    "qwen2": "qwen2",
    "deepseek-r1-qwen": "qwen2",
}


def family(pre: str) -> str:
    """The rules that a model's `tokenizer.ggml.pre` stands for."""
    if pre not in _FAMILY:
        known = ", ".join(sorted(_FAMILY))
        raise UnsupportedModelError(f"pre-tokenizer {pre!r} is not supported; known ones: {known}")
    return _FAMILY[pre]


def pre_of(splits: tuple[str, ...]) -> str | None:
    """The name of the rules that are these expressions, cutting one after the other."""
    return next((pre for pre, known in _SPLITS.items() if known == splits), None)


def composes(pre: str) -> bool:
    """Whether characters are composed (NFC) first, as Qwen2's own tokenizer does."""
    return family(pre) == "qwen2"


def ignores_merges(pre: str) -> bool:
    """Whether a word that is itself a token is taken even where merges would not build it, as
    Llama 3 does."""
    return family(pre) == "llama-bpe"


def bpe_parts(spec: TokenizerSpec, vocab: dict[str, int]) -> dict[str, Any]:
    """The normalizer, pre-tokenizer and model of a tokenizer.json."""
    rules = family(spec.pre)
    _check_merges(spec.merges or [], vocab)
    return {
        "normalizer": {"type": "NFC"} if composes(spec.pre) else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": _pre_tokenizers(rules)},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": ignores_merges(spec.pre),
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


def _pre_tokenizers(rules: str) -> list[dict[str, Any]]:
    splits = [_split(expression) for expression in _SPLITS[rules]]
    to_bytes = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    return [*splits, to_bytes]


def _split(expression: str) -> dict[str, Any]:
    """Write the pre-tokenizer that makes every match and every gap between a part of its own."""
    return {
        "type": "Split",
        "pattern": {"Regex": expression},
        "behavior": "Isolated",
        "invert": False,
    }
