"""The normalizer and pre-tokenizer of a tokenizer.json, as the rules that Octavo has names for.

Comes in: the file's fields. Goes out: a name, or where a blank is put in front. What is none of
the known forms is refused with the part of the file that is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octavo.errors import UnsupportedModelError
from octavo.tokenizer.pre_tokenizer import COVERING, DIGIT, GPT2, Cut, Step, pre_of
from octavo.tokenizer.spm import SPACE
from octavo.weights.hf.json_fields import Fields

_BLANKS = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_IN_FRONT = {"type": "Prepend", "prepend": SPACE}
# cuts at blanks, of which the normalizer leaves none
_NO_CUT = {
    "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False,
}  # fmt: skip


def byte_level_rules(file: Fields, *, whole_words: bool) -> str:
    """The rules of a byte-level BPE, by the name that GGUF files have for them."""
    parts = _parts(file, "pre_tokenizer", "pretokenizers")
    steps: list[Step] = []
    for part in parts:
        match part:
            case {"type": "Split", "pattern": {"Regex": str(rule)}} if _isolates(part, rule):
                steps.append(rule)
            case {"type": "Digits"}:
                steps.append(DIGIT if part.get("individual_digits") else Cut.DIGITS)
            case {"type": "Punctuation", "behavior": "Contiguous"}:
                steps.append(Cut.PUNCTUATION)
            case {"type": "ByteLevel"} if parts == [part] or not part.get("add_prefix_space", True):
                steps += [GPT2, Cut.BYTES] if part.get("use_regex", True) else [Cut.BYTES]
            case _:
                raise _unknown(file, "pre_tokenizer")
    pre = pre_of(tuple(steps), whole_words=whole_words)
    if pre is None:
        raise _unknown(file, "pre_tokenizer")
    return pre


def _isolates(split: Mapping[str, Any], rule: str) -> bool:
    """Whether matches and gaps become parts. To remove the gaps is the same where there are none,
    which is how files made from tiktoken's are written."""
    match split:
        case {"behavior": "Isolated"}:
            return not split.get("invert")
        case {"behavior": "Removed", "invert": True}:
            return rule in COVERING
    return False


def byte_level_blanks(file: Fields) -> dict[str, Any]:
    """Which texts a byte-level BPE puts a blank in front of; `byte_level_rules` has seen the
    rest."""
    match _parts(file, "pre_tokenizer", "pretokenizers"):
        case [{"type": "ByteLevel"} as part] if part.get("add_prefix_space", True):
            return {"add_space_prefix": True, "prefix_bare_only": True}
    return {}


def is_nfc(file: Fields) -> bool:
    """Whether a byte-level BPE composes characters first."""
    parts = _parts(file, "normalizer", "normalizers")
    if parts not in ([], [{"type": "NFC"}]):
        raise _unknown(file, "normalizer")
    return bool(parts)


def blanks_in_front(file: Fields) -> dict[str, Any]:
    """Which texts an spm puts a blank in front of, as a `TokenizerSpec` has it."""
    cuts = _parts(file, "pre_tokenizer", "pretokenizers")
    match cuts:
        case [{"type": "Metaspace"} as part]:
            return _metaspace(file, part)
    if cuts not in ([], [_NO_CUT]):
        raise _unknown(file, "pre_tokenizer")
    parts = _parts(file, "normalizer", "normalizers")
    if parts not in ([_BLANKS], [_IN_FRONT, _BLANKS]):
        raise _unknown(file, "normalizer")
    return {"add_space_prefix": len(parts) > 1}


def _metaspace(file: Fields, part: Mapping[str, Any]) -> dict[str, Any]:
    """One that cuts would keep merges from joining blanks; blanks elsewhere are not its own."""
    if _parts(file, "normalizer", "normalizers"):
        raise _unknown(file, "normalizer")
    old = "always" if part.get("add_prefix_space", True) else "never"
    scheme = part.get("prepend_scheme", old)
    is_known = scheme in ("always", "first", "never")
    if part.get("replacement") != SPACE or part.get("split", True) or not is_known:
        raise _unknown(file, "pre_tokenizer")
    return {
        "add_space_prefix": scheme != "never",
        "prefix_bare_only": True,
        "prefix_first_only": scheme == "first",
    }


def _parts(file: Fields, name: str, inner: str) -> list[Any]:
    """What is done, in order; a sequence is taken apart."""
    match file.get(name):
        case None:
            return []
        case {"type": "Sequence"} as whole if isinstance(whole.get(inner), list):
            return list(whole[inner])
        case part:
            return [part]


def _unknown(file: Fields, name: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{file.said(name)}: Octavo's tokenizers have no such rule, and other tokens would come of "
        "it"
    )
