"""How byte-level BPE cuts a text into words that merges may not cross: the rules of each family,
and the names that GGUF files have for them.

Comes in: a name, or steps read from a tokenizer.json. Goes out: steps, and what does them.
Every family's rules end a word before a blank or a mark, but BLOOM's, whose words go over many
marks (`long_text.py` lives on that). The expressions are the ones that the families publish, not
what a program may have made of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

import tokenizers
from tokenizers import pre_tokenizers

from octavo.errors import UnsupportedModelError


class Cut(Enum):
    """What is done to a text besides cutting it by expressions."""

    BYTES = "bytes become the characters that stand for them"
    DIGITS = "a run of digits is a part"
    PUNCTUATION = "a run of punctuation is a part"


Step = str | Cut  # an expression, each match and each gap of which is a part, or something else

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_PUNCTUATION_AND_BLANKS = rf" ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_BLANKS}"
_LLAMA3 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_PUNCTUATION_AND_BLANKS}"
_QWEN2 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_PUNCTUATION_AND_BLANKS}"

# A word is capitals, then small letters; either may be none. Marks and letters that have no case
# are both.
_BEFORE, _UPPER, _LOWER = r"[^\r\n\p{L}\p{N}]?", r"\p{Lu}\p{Lt}", r"\p{Ll}"
_EITHER = r"\p{Lm}\p{Lo}\p{M}"
_SMALL = rf"{_BEFORE}[{_UPPER}{_EITHER}]*[{_LOWER}{_EITHER}]+"
_CAPITAL = rf"{_BEFORE}[{_UPPER}{_EITHER}]+[{_LOWER}{_EITHER}]*"
_PATHS_AND_BLANKS = rf" ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_BLANKS}"
_TEKKEN = rf"{_SMALL}|{_CAPITAL}|\p{{N}}|{_PATHS_AND_BLANKS}"
_ENDED = rf"{_SMALL}{_CONTRACTIONS}?|{_CAPITAL}{_CONTRACTIONS}?"
_GPT4O = rf"{_ENDED}|\p{{N}}{{1,3}}|{_PATHS_AND_BLANKS}"

_BLOOM = " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DIGIT = r"\p{N}"

# What matches any text whole: there are no gaps.
COVERING = frozenset({GPT2, _LLAMA3, _QWEN2, _TEKKEN, _GPT4O})

# The rules of each family: steps, one after the other.
_STEPS: Mapping[str, tuple[Step, ...]] = MappingProxyType(
    {
        "gpt-2": (GPT2, Cut.BYTES),
        "smollm": (DIGIT, GPT2, Cut.BYTES),
        "falcon": (Cut.PUNCTUATION, GPT2, Cut.BYTES, Cut.DIGITS, "[0-9][0-9][0-9]"),
        "llama-bpe": (_LLAMA3, Cut.BYTES),
        "dbrx": (_LLAMA3, Cut.BYTES),
        "qwen2": (_QWEN2, Cut.BYTES),
        "tekken": (_TEKKEN, Cut.BYTES),
        "gpt-4o": (_GPT4O, Cut.BYTES),
        "bloom": (_BLOOM, Cut.BYTES),
        # what llama.cpp does with files whose converter did not know the model
        "default": (r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", r"[0-9]{3}", Cut.BYTES),
    }
)

# Of these a word that is itself a token is taken even where merges would not build it.
_WHOLE_WORDS = frozenset({"llama-bpe", "tekken"})

# names that models use for the same rules
_ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "gpt-2": ("a.x-4.0", "granite-docling", "jais", "mellum", "mpt", "olmo", "phi-2",
                  "trillion"),
        "smollm": ("codeshell", "command-r", "exaone", "minerva-7b", "refact", "starcoder"),
        "llama-bpe": ("falcon3", "llama-v3", "llama3", "midm-2.0", "pixtral"),
        "dbrx": ("smaug-bpe",),
        "qwen2": ("deepseek-r1-qwen", "f2llmv2", "kormo", "megrez"),
        "gpt-4o": ("kanana2", "llama4"),
        "bloom": ("gpt3-finnish", "poro-chat"),
    }
)  # fmt: skip
_FAMILY: Mapping[str, str] = MappingProxyType(
    {name: rules for rules in _STEPS for name in (rules, *_ALIASES.get(rules, ()))}
)


def family(pre: str) -> str:
    """The rules that a model's `tokenizer.ggml.pre` stands for."""
    if pre not in _FAMILY:
        known = ", ".join(sorted(_FAMILY))
        raise UnsupportedModelError(f"pre-tokenizer {pre!r} is not supported; known ones: {known}")
    return _FAMILY[pre]


def pre_of(steps: tuple[Step, ...], *, whole_words: bool) -> str | None:
    """The name of the rules that are these steps; of several the one that takes words so."""
    names = [pre for pre, known in _STEPS.items() if known == steps]
    return next((pre for pre in names if (pre in _WHOLE_WORDS) == whole_words), (*names, None)[0])


def adds_bos(pre: str) -> bool:
    """Whether a GGUF file that does not say so has a BOS put before every text."""
    return _FAMILY.get(pre) in _WHOLE_WORDS


def takes_whole_words(pre: str) -> bool:
    """Whether a word that is itself a token is taken even where merges would not build it."""
    return family(pre) in _WHOLE_WORDS


def ends_words_at_marks(pre: str) -> bool:
    """Whether no word goes on from a letter or a digit to a mark, as none does to a blank."""
    return _FAMILY.get(pre) != "bloom"


def pre_tokenizer(pre: str) -> pre_tokenizers.PreTokenizer:
    """The library's pre-tokenizer that does these steps."""
    return pre_tokenizers.Sequence([_part(step) for step in _STEPS[family(pre)]])


def _part(step: Step) -> pre_tokenizers.PreTokenizer:
    match step:
        case Cut.BYTES:
            return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        case Cut.DIGITS:
            return pre_tokenizers.Digits(individual_digits=False)
        case Cut.PUNCTUATION:
            return pre_tokenizers.Punctuation("contiguous")
    return pre_tokenizers.Split(tokenizers.Regex(step), "isolated")  # matches and gaps are parts
