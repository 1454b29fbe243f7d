"""From tokenizer.json to a `TokenizerSpec`: the forms of it that are known, and nothing like them.

Comes in: the files' fields. Goes out: a spec that encodes every text as `tokenizers` would with the
file itself. What it cannot say is refused by name: other models than BPE, other rules, tokens of
any text that take the blanks beside them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.tokenizer.byte_level import byte_to_char
from octavo.tokenizer.spec import TokenizerSpec, TokenType
from octavo.tokenizer.spm import SPACE
from octavo.values import is_whole
from octavo.weights.hf.json_fields import Fields, shown_json
from octavo.weights.hf.pre_tokenizer import (
    blanks_in_front,
    byte_level_blanks,
    byte_level_rules,
    is_nfc,
)
from octavo.weights.model_files import Note

_USUAL: Mapping[str, object] = MappingProxyType(
    {"type": "BPE", "dropout": 0, "continuing_subword_prefix": "", "end_of_word_suffix": ""}
)
_BYTE_NAMES = frozenset(f"<0x{byte:02X}>" for byte in range(256))


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens of a file that the embedding has rows for."""

    tokens: list[str]
    added: Mapping[int, Mapping[str, Any]]  # by id; `special`, `normalized` and the rest

    def has_all(self, names: Iterable[str]) -> bool:
        return set(names).issubset(self.tokens)

    def id_of(self, name: str | None) -> int | None:
        return self.tokens.index(name) if name is not None and name in self.tokens else None


def token_count(file: Fields, rows: int) -> int:
    """How many tokens there are, of an embedding of so many rows. Other errors come later."""
    ids = [*file.fields("model").fields("vocab").values.values()]
    ids += [each.get("id") for each in _added(file)]
    if not _are_rows(ids, rows):
        ids = [i for i in ids if is_whole(i) and 0 <= i < rows]
    return max(ids, default=rows - 1) + 1


def _are_rows(ids: list[Any], rows: int) -> bool:
    """Whether all are whole numbers below `rows`: quick, for most vocabularies are."""
    return bool(ids) and {*map(type, ids)} == {int} and min(ids) >= 0 and max(ids) < rows


def vocabulary(file: Fields, rows: int, note: Note) -> Vocabulary:
    """Raises ModelError unless every id up to the last has one token."""
    vocab = file.fields("model").fields("vocab").values
    ids = [*vocab.values()]
    names: dict[int, str] = dict(zip(ids, vocab, strict=True)) if _are_rows(ids, rows) else {}
    if len(names) < len(vocab):
        names = {}

    def name_it(token_id: int, name: str) -> None:
        other = names.setdefault(token_id, name)
        if other != name:
            raise ModelFormatError(
                f"{file.where}: tokens {other!r} and {name!r} both have id {token_id}"
            )

    for name, token_id in () if names else vocab.items():  # one by one to say what is wrong
        if not is_whole(token_id) or not 0 <= token_id < rows:
            raise ModelFormatError(
                f"{file.where}: token {name!r} has id {shown_json(token_id)}: expected one of the "
                f"{rows} rows of the embedding"
            )
        name_it(token_id, name)
    added = {}
    for each in _added(file):
        match each:
            case {"content": str(name), "id": int(token_id)} if token_id >= 0:
                pass
            case _:
                raise ModelFormatError(
                    f"{file.where}: added_tokens has {shown_json(each)}: expected content and id"
                )
        if token_id < rows:
            name_it(token_id, name)
            added[token_id] = each
        else:
            note(
                f"{file.where}: token {name!r} of id {token_id} is left out: the embedding has "
                f"{rows} rows"
            )
    if max(names, default=-1) >= len(names):
        missing = next(i for i in range(len(names)) if i not in names)
        raise UnsupportedModelError(f"{file.where}: no token has id {missing}, others have more")
    return Vocabulary([names[i] for i in range(len(names))], added)


def _added(file: Fields) -> list[dict[str, Any]]:
    found = file.get("added_tokens") or []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise file.wrong("added_tokens", "a list of objects")
    return found


def tokenizer_spec(file: Fields, rows: int, note: Note) -> TokenizerSpec:
    """What tokenizer.json alone says: BOS, EOS and the template are in other files."""
    words = vocabulary(file, rows, note)
    model = file.fields("model")
    for name, usual in _USUAL.items():
        if model.has(name) and model.get(name) != usual:
            raise UnsupportedModelError(
                f"{model.said(name)}: only {shown_json(usual)} is supported"
            )
    kind: Literal["bpe", "spm"] = "spm" if model.flag("byte_fallback", default=False) else "bpe"
    whole_words = model.flag("ignore_merges", default=False)
    if kind == "spm":
        pre, blanks, nfc = "default", _blanks(file, words), False
    else:
        pre = _pre(file, words, whole_words=whole_words)
        blanks, nfc = byte_level_blanks(file), is_nfc(file)
    unk = model.text("unk_token", default="") if kind == "spm" else ""
    types = _types(file, words, kind, unk, blanks)
    return TokenizerSpec(
        kind=kind,
        pre=pre,
        tokens=words.tokens,
        token_types=types,
        merges=_merges(model, words, types),
        unk_id=words.id_of(unk),
        composes=nfc,
        ignore_merges=whole_words,
        strip_left=_special_ids(words, "lstrip"),
        strip_right=_special_ids(words, "rstrip"),
        **blanks,
        **_bos_and_eos(file, words),
    )


def _pre(file: Fields, words: Vocabulary, *, whole_words: bool) -> str:
    """The rules of a byte-level BPE, by their name."""
    pre = byte_level_rules(file, whole_words=whole_words)
    model = file.fields("model")
    if model.has("unk_token") and not words.has_all(byte_to_char()):
        raise _cannot(model, "unk_token")
    return pre


def _blanks(file: Fields, words: Vocabulary) -> dict[str, Any]:
    """Which texts a blank is put in front of, in a vocabulary that can spell any."""
    if not words.has_all(_BYTE_NAMES):
        missing = next(name for name in sorted(_BYTE_NAMES) if name not in words.tokens)
        raise ModelFormatError(
            f"{file.where}: byte_fallback is true, and there is no token {missing!r}"
        )
    return blanks_in_front(file)


def _special_ids(words: Vocabulary, side: str) -> frozenset[int]:
    return frozenset(i for i, each in words.added.items() if each.get(side))


def _cannot(fields: Fields, name: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{fields.said(name)}: Octavo's tokenizers do not do so here, and other tokens would come "
        "of it"
    )


def _types(
    file: Fields, words: Vocabulary, kind: str, unk: str, blanks: Mapping[str, Any]
) -> npt.NDArray[np.int32]:
    """(num_tokens,) int32. An added token that is no special one is found in any text, but where
    its name has the stand-in of blanks, which merges put together of a text's blanks."""
    types = np.full(len(words.tokens), TokenType.NORMAL, np.int32)
    for token_id, each in words.added.items():
        name = each["content"]
        is_normalized = each.get("normalized") and file.has("normalizer")
        for side in ("lstrip", "rstrip", "single_word"):
            if each.get(side) and not (each.get("special") and side != "single_word"):
                raise UnsupportedModelError(
                    f"{file.where}: token {name!r} has {side}: Octavo's tokenizers do not do so"
                )
        if each.get("special"):
            types[token_id] = TokenType.CONTROL
        elif kind == "bpe" or SPACE not in name or is_normalized:
            if blanks.get("add_space_prefix") and not blanks.get("prefix_first_only"):
                raise UnsupportedModelError(
                    f"{file.where}: token {name!r} is found in any text, and what follows it would "
                    "begin with a blank: Octavo's tokenizers do not do so"
                )
            types[token_id] = TokenType.USER_DEFINED
    if kind == "spm":
        for token_id, name in enumerate(words.tokens):
            if name == unk:
                types[token_id] = TokenType.UNKNOWN
            elif name in _BYTE_NAMES:
                types[token_id] = TokenType.BYTE
    return types


def _merges(model: Fields, words: Vocabulary, types: npt.NDArray[np.int32]) -> list[str]:
    """Without those that would spell a control token: plain text yields none."""
    found = model.get("merges")
    if not isinstance(found, list):
        raise model.wrong("merges", "a list")
    pairs = _pairs(model, found)
    is_hidden = np.isin(types, (TokenType.CONTROL, TokenType.UNKNOWN))
    hidden = {words.tokens[i] for i in np.flatnonzero(is_hidden)}
    return [
        f"{left} {right}"
        for left, right in pairs
        if not (left in hidden or right in hidden or left + right in hidden)
    ]


def _pairs(model: Fields, found: list[Any]) -> list[list[str]]:
    """The two tokens of each merge: newer files have them so, older ones in one string. Half a
    million are looked at together; one by one to say what is wrong."""
    if {*map(type, found)} == {list} and {*map(len, found)} == {2}:
        with contextlib.suppress(TypeError):  # where one is no string
            if " " not in "".join(chain.from_iterable(found)):
                return found
    pairs = []
    for number, merge in enumerate(found):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if _is_pair(pair):
            pairs.append(pair)
            continue
        raise ModelFormatError(
            f"{model.name_of('merges')}: number {number} is {shown_json(merge)}: "
            "expected two tokens"
        )
    return pairs


def _is_pair(value: object) -> bool:
    match value:
        case [str(left), str(right)]:
            return " " not in left and " " not in right
    return False


def _bos_and_eos(file: Fields, words: Vocabulary) -> dict[str, Any]:
    """Return what is put around every text: at most one token on each side."""
    before: list[str] = []
    after: list[str] = []
    for part in _template(file):
        match part:
            case {"Sequence": {"id": "A"}}:
                after.append("")
            case {"SpecialToken": {"id": str(name)}}:
                (after if after else before).append(name)
            case _:
                raise _cannot(file, "post_processor")
    after = after[1:]
    if len(before) > 1 or len(after) > 1:
        raise _cannot(file, "post_processor")
    found: dict[str, Any] = {}
    for side, names in (("bos", before), ("eos", after)):
        if names:
            found |= {f"{side}_id": words.id_of(names[0]), f"add_{side}": True}
    return found


def _template(file: Fields) -> list[Any]:
    """The template for one text, of whatever the file has as post-processors."""
    post = file.get("post_processor") or {"type": "ByteLevel"}
    match post:
        case {"type": "Sequence", "processors": list(parts)}:
            pass
        case _:
            parts = [post]
    found: list[Any] = [{"Sequence": {"id": "A"}}]
    for part in parts:
        match part:
            case {"type": "TemplateProcessing", "single": list(found)}:
                pass
            case {"type": "ByteLevel"}:  # which moves offsets only
                pass
            case _:
                raise _cannot(file, "post_processor")
    return found
