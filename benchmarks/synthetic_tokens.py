"""A vocabulary of any size for models of random weights: byte-level BPE, whose words are runs of
letters, so that what such a model says prints as text.

Goes out: the keys of a GGUF file. Knows no shapes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, product
from string import ascii_lowercase

from benchmarks.gguf_writer import Value
from octavo.tokenizer.byte_level import byte_to_char
from octavo.tokenizer.spec import TokenType

SPECIAL = 256  # the last ids, as Llama 3 has them
PARTIAL = range(128, 256)  # tokens of a byte that is no character alone
_BLANK = "Ġ"


def tokens(size: int) -> dict[str, Value]:
    """`size` tokens: 256 bytes, words, and control tokens, of which 0 begins and 9 ends a text."""
    single = list(byte_to_char())
    merges = list(islice(_merges(), size - SPECIAL - len(single)))
    words = [merge.replace(" ", "") for merge in merges]
    special = [f"<|reserved_special_token_{i}|>" for i in range(SPECIAL)]
    special[0], special[9] = "<|begin_of_text|>", "<|eot_id|>"
    first = size - SPECIAL
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": single + words + special,
        "tokenizer.ggml.token_type": [int(TokenType.NORMAL)] * first
        + [int(TokenType.CONTROL)] * SPECIAL,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": first,
        "tokenizer.ggml.eos_token_id": first + 9,
    }


def _merges() -> Iterator[str]:
    """Words of one letter after a blank, then of two without one, of two after one, and so on: what
    merges is there before."""
    for length in (2, 3, 4):
        before = ["".join(each) for each in product(ascii_lowercase, repeat=length - 1)]
        for word in before:
            yield f"{_BLANK} {word}"
        for word, letter in product(before, ascii_lowercase):
            yield f"{word} {letter}"
