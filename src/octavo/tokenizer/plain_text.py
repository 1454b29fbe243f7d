"""From a spec to a ready `tokenizers.Tokenizer` of plain text.

Control tokens are in its vocabulary under names that no text can spell, so that ids stay aligned;
splitting text at them is `special.py`'s work. It is made of objects: as a tokenizer.json, written
and read again, it takes twice as long. Knows no decoding and no chat.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tokenizers

from octavo.errors import ModelFormatError, OctavoError
from octavo.interrupts import is_interrupt
from octavo.tokenizer import bpe, kept_merges, spm
from octavo.tokenizer.spec import TokenizerSpec, TokenType


def build(spec: TokenizerSpec, cache_dir: Path | None) -> tokenizers.Tokenizer:
    """Build the tokenizer. What would take long of it is taken from `cache_dir`, or kept there."""
    vocab = _vocab(spec)
    merges = _merges(spec, vocab, cache_dir)
    make = bpe.plain_tokenizer if spec.kind == "bpe" else spm.plain_tokenizer
    try:
        tokenizer = make(spec, vocab, merges)
    except Exception as error:  # the library raises no narrower type
        if is_interrupt(error) or isinstance(error, OctavoError):
            raise
        raise ModelFormatError(f"the model's tokens and merges do not fit: {error}") from error
    tokenizer.add_tokens(_added_tokens(spec))
    return tokenizer


def _merges(
    spec: TokenizerSpec, vocab: dict[str, int], cache_dir: Path | None
) -> list[tuple[str, str]]:
    """Pairs of pieces, the best first. What is no pair the library refuses."""
    if spec.merges is not None:
        _check_merges(spec.merges, vocab)
        return [tuple(merge.split(" ")) for merge in spec.merges]  # type: ignore[misc]
    piece = spec.tokens.__getitem__
    left, right = kept_merges.load(spec, cache_dir).T.tolist()
    return list(zip(map(piece, left), map(piece, right), strict=True))


def _check_merges(merges: list[str], vocab: dict[str, int]) -> None:
    """`tokenizers` panics, which is no Exception, where a merge has more bytes than all tokens. Of
    other merges it says itself what is wrong."""
    sure = max(map(len, vocab), default=0) // 4  # characters that have no more bytes
    for merge in [each for each in merges if len(each) > sure]:
        if merge.replace(" ", "") not in vocab:
            raise ModelFormatError(
                f"the model's tokens and merges do not fit: {merge!r} makes no token that there is"
            )


def _vocab(spec: TokenizerSpec) -> dict[str, int]:
    """The names by id; few passes over them, which are most of what a start spends here."""
    tokens, types = spec.tokens, np.asarray(spec.token_types)
    hidden = {*spec.control_ids, *np.flatnonzero(types == TokenType.UNKNOWN).tolist()}
    if "" in tokens:
        hidden.update(index for index, piece in enumerate(tokens) if not piece)
    names = list(tokens)
    for index in hidden:
        # NUL is no byte-level character, and no merge of SPM makes it part of a longer piece
        names[index] = f"\0{index}"
    for index, byte in spec.byte_of.items():
        names[index] = f"<0x{byte:02X}>"
    vocab = dict(zip(names, range(len(names)), strict=True))
    renamed = [tokens[index] for index in hidden]
    if (
        len(vocab) < len(names)
        or len({*renamed}) < len(renamed)
        or not vocab.keys().isdisjoint(renamed)
    ):
        _check_unique(spec)
    return vocab


def _check_unique(spec: TokenizerSpec) -> None:
    first: dict[str, int] = {}
    for index, piece in enumerate(spec.tokens):
        if piece and index not in spec.byte_of and first.setdefault(piece, index) != index:
            raise ModelFormatError(f"tokens {first[piece]} and {index} are both {piece!r}")


def _added_tokens(spec: TokenizerSpec) -> list[tokenizers.AddedToken]:
    """User-defined pieces, found in any plain text; for SPM after blanks became U+2581."""
    normalized = spec.kind == "spm"
    return [
        tokenizers.AddedToken(spec.tokens[index], normalized=normalized)
        for index in spec.user_defined_ids
    ]
