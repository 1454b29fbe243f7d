"""Byte-level BPE, slow and obvious: the oracle for ids of kind bpe.

Written from the published regular expressions of each family, without a regular-expression engine
and without the `tokenizers` library: a hand-written scanner over `unicodedata` categories, then the
best-ranked pair joined one at a time. Control tokens are text to it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from itertools import groupby, pairwise

from octavo.tokenizer import TokenizerSpec

# Unicode's White_Space property; str.isspace() would add U+001C..U+001F
_BLANKS = {*range(9, 14), 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B)}
_BLANKS |= {0x2028, 0x2029, 0x202F, 0x205F, 0x3000}
FAMILIES = (
    "gpt-2", "smollm", "falcon", "llama-bpe", "dbrx", "qwen2", "tekken", "gpt-4o", "bloom",
    "default",
)  # fmt: skip
_ENDING_BLOOM = "()|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c"
_ENDINGS = ("s", "t", "re", "ve", "m", "ll", "d")


def encode(text: str, spec: TokenizerSpec, pre: str) -> list[int]:
    """Ids of `text`, user-defined tokens cut out first; bytes that have no token are left out."""
    assert spec.merges is not None
    own = sorted((spec.tokens[i] for i in spec.user_defined_ids), key=len, reverse=True)
    parts = re.split("(" + "|".join(map(re.escape, own)) + ")", text) if own else [text]
    ids = {token: index for index, token in enumerate(spec.tokens)}
    ranks = {merge: rank for rank, merge in enumerate(spec.merges)}
    result = []
    for part in parts:
        result += [ids[part]] if part in own else _plain(part, ids, ranks, pre)
    return result


def _plain(text: str, ids: dict[str, int], ranks: dict[str, int], pre: str) -> list[int]:
    result = []
    for word in split(text, pre):
        chars = "".join(_stand_in(byte) for byte in word.encode())
        for piece in _falcon_pieces(chars) if pre == "falcon" else [chars]:
            whole = pre in ("llama-bpe", "tekken") and piece in ids
            parts = [piece] if whole else _join([c for c in piece if c in ids], ranks)
            result += [ids[part] for part in parts]
    return result


def _falcon_pieces(chars: str) -> list[str]:
    """Digits are looked for among the bytes' stand-ins, so those of 0xB2, 0xBC and others count."""
    return [part for run in _isolate([chars], _number) for part in _threes(run)]


def split(text: str, pre: str) -> list[str]:
    """The words that merges may not cross."""
    if pre == "qwen2":
        text = unicodedata.normalize("NFC", text)
    if pre == "smollm":
        return [word for run in _single_digits(text) for word in _scan(run, _gpt2_word)]
    if pre == "default":
        return _default_words(text)
    if pre == "falcon":
        return [word for part in _isolate([text], _mark) for word in _scan(part, _gpt2_word)]
    return _scan(text, _WORDS[pre])


def _join(parts: list[str], ranks: dict[str, int]) -> list[str]:
    while len(parts) > 1:
        pairs = [f"{a} {b}" for a, b in pairwise(parts)]
        best = min(range(len(pairs)), key=lambda i: (ranks.get(pairs[i], len(ranks)), i))
        if pairs[best] not in ranks:
            break
        parts = [*parts[:best], parts[best] + parts[best + 1], *parts[best + 2 :]]
    return parts


def _stand_in(byte: int) -> str:
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    visible += range(ord("®"), ord("ÿ") + 1)
    if byte in visible:
        return chr(byte)
    return chr(256 + sum(b not in visible for b in range(byte)))


def _scan(text: str, word_size: Callable[[str, int], int]) -> list[str]:
    words, at = [], 0
    while at < len(text):
        size = word_size(text, at)
        assert size > 0
        words.append(text[at : at + size])
        at += size
    return words


def _single_digits(text: str) -> list[str]:
    runs: list[str] = []
    joined = False
    for char in text:
        number = _number(char)
        if joined and not number:
            runs[-1] += char
        else:
            runs.append(char)
        joined = not number
    return runs


def _default_words(text: str) -> list[str]:
    words = _isolate([text], _punctuation)
    words = [word for part in words for word in _scan(part, _gpt2_word)]
    words = _isolate(words, _number)
    return [part for word in words for part in _threes(word)]


def _isolate(parts: list[str], kind: Callable[[str], bool]) -> list[str]:
    return ["".join(run) for part in parts for _, run in groupby(part, kind)]


def _threes(word: str) -> list[str]:
    """Cut runs of ASCII digits into threes; what is left over is a part of its own."""
    parts = []
    for ascii_digits, run in groupby(word, lambda char: char in "0123456789"):
        size = 3 if ascii_digits else max(len(word), 1)
        chars = "".join(run)
        parts += [chars[at : at + size] for at in range(0, len(chars), size)]
    return parts


def _punctuation(char: str) -> bool:
    return unicodedata.category(char)[0] == "P" or char in "$+<=>^~|"


def _mark(char: str) -> bool:
    return _punctuation(char) or char == "`"


def _letter(char: str) -> bool:
    return unicodedata.category(char)[0] == "L"


def _number(char: str) -> bool:
    return unicodedata.category(char)[0] == "N"


def _blank(char: str) -> bool:
    return ord(char) in _BLANKS


def _other(char: str) -> bool:
    return not (_letter(char) or _number(char) or _blank(char))


def _newline(char: str) -> bool:
    return char in "\r\n"


def _upper(char: str) -> bool:
    return unicodedata.category(char) in ("Lu", "Lt", "Lm", "Lo", "Mn", "Mc", "Me")


def _lower(char: str) -> bool:
    return unicodedata.category(char) in ("Ll", "Lm", "Lo", "Mn", "Mc", "Me")


def _run(text: str, at: int, kind: Callable[[str], bool]) -> int:
    size = 0
    while at + size < len(text) and kind(text[at + size]):
        size += 1
    return size


def _blanks_before_word(text: str, at: int) -> int:
    """A run of blanks leaves its last one to the word after it."""
    size = _run(text, at, _blank)
    return size if at + size == len(text) else max(size - 1, 1)


def _gpt2_word(text: str, at: int) -> int:
    if text[at] == "'":
        for ending in _ENDINGS:
            if text.startswith(ending, at + 1):
                return 1 + len(ending)
    lead = int(text[at] == " ")
    for kind in (_letter, _number, _other):
        if size := _run(text, at + lead, kind):
            return lead + size
    return _blanks_before_word(text, at)


def _ending(text: str, at: int) -> int:
    """The size of 's, 'll and so on, of whatever case."""
    if text[at : at + 1] == "'":
        for ending in _ENDINGS:
            found = text[at + 1 : at + 1 + len(ending)]
            if found.replace("\u017f", "s").lower() == ending:  # U+017F is a lower-case s
                return 1 + len(ending)
    return 0


def _llama3_word(text: str, at: int, digits: int = 3) -> int:
    if size := _ending(text, at):
        return size
    lead = int(not (_letter(text[at]) or _number(text[at]) or _newline(text[at])))
    if size := _run(text, at + lead, _letter):
        return lead + size
    return _number_or_other(text, at, digits, _newline)


def _number_or_other(text: str, at: int, digits: int, end: Callable[[str], bool]) -> int:
    if size := _run(text, at, _number):
        return min(size, digits)
    lead = int(text[at] == " ")
    if size := _run(text, at + lead, _other):
        return lead + size + _run(text, at + lead + size, end)
    blanks = text[at : at + _run(text, at, _blank)]
    if newline := max(blanks.rfind("\n"), blanks.rfind("\r")) + 1:
        return newline
    return _blanks_before_word(text, at)


def _qwen2_word(text: str, at: int) -> int:
    return _llama3_word(text, at, digits=1)


def _tekken_word(text: str, at: int) -> int:
    return _cased(text, at) or _number_or_other(text, at, 1, _newline_or_slash)


def _gpt4o_word(text: str, at: int) -> int:
    if size := _cased(text, at):
        return size + _ending(text, at + size)
    return _number_or_other(text, at, 3, _newline_or_slash)


def _bloom_word(text: str, at: int) -> int:
    """Of what is neither blank nor one of some marks, after a blank or none; else all before the
    next such word."""
    if size := _bloom_match(text, at):
        return size
    size = 1
    while at + size < len(text) and not _bloom_match(text, at + size):
        size += 1
    return size


def _bloom_match(text: str, at: int) -> int:
    lead = int(text[at] == " ")
    size = _run(text, at + lead, lambda char: not (_blank(char) or char in _ENDING_BLOOM))
    return lead + size if size else 0


def _newline_or_slash(char: str) -> bool:
    return char in "\r\n/"


def _cased(text: str, at: int) -> int:
    """Capitals then small letters: with a small one, else without; one sign before them, else
    none."""
    leads = [1, 0] if _other(text[at]) or (_blank(text[at]) and not _newline(text[at])) else [0]
    for lead in leads:
        capitals = _run(text, at + lead, _upper)
        for count in range(capitals, -1, -1):
            if size := _run(text, at + lead + count, _lower):
                return lead + count + size
    for lead in leads:
        if capitals := _run(text, at + lead, _upper):
            return lead + capitals + _run(text, at + lead + capitals, _lower)
    return 0


_WORDS = {
    "gpt-2": _gpt2_word, "llama-bpe": _llama3_word, "dbrx": _llama3_word, "qwen2": _qwen2_word,
    "tekken": _tekken_word, "gpt-4o": _gpt4o_word, "bloom": _bloom_word,
}  # fmt: skip
