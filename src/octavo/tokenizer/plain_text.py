"""From a spec to a ready `tokenizers.Tokenizer`, by way of its JSON document, which is what the
cache keeps.

The document knows plain text only: control tokens are in its vocabulary under names that no text
can spell, so that ids stay aligned; splitting text at them is `special.py`'s work. Knows no
decoding and no chat.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import tokenizers

from octavo.atomic_file import write_whole
from octavo.errors import ModelFormatError
from octavo.interrupts import is_interrupt
from octavo.tokenizer.bpe import bpe_parts
from octavo.tokenizer.spec import TokenizerSpec, TokenType
from octavo.tokenizer.spm import spm_parts

_FORMAT = 2  # raise when the same spec gives another document

logger = logging.getLogger(__name__)


def load(spec: TokenizerSpec, cache_dir: Path | None) -> tokenizers.Tokenizer:
    """Build the tokenizer, or take it from `cache_dir` if an equal spec was built before."""
    if cache_dir is None:
        return _compile(document(spec))
    path = cache_path(spec, cache_dir)
    cached = _read(path)
    if cached is not None:
        return tokenizers.Tokenizer.from_buffer(cached)
    text = document(spec)
    tokenizer = _compile(text)
    try:
        write_whole(path, _with_checksum(text.encode()))
    except OSError as error:
        if is_interrupt(error):  # a TimeoutError is one too
            raise
        logger.warning(
            "cannot keep the tokenizer in %s (%s): it is built anew each time; "
            "set OCTAVO_HOME to a directory that can be written",
            cache_dir,
            error.strerror or error,
        )
    return tokenizer


def cache_path(spec: TokenizerSpec, cache_dir: Path) -> Path:
    """Where the tokenizer of `spec` is kept, once it was built."""
    salt = f"octavo tokenizer {_FORMAT}, tokenizers {tokenizers.__version__}"
    return cache_dir / f"{spec.digest(salt)}.tokenizer"


def document(spec: TokenizerSpec) -> str:
    """Write the tokenizer.json of `spec`, as text."""
    parts = (bpe_parts if spec.kind == "bpe" else spm_parts)(spec, _vocab(spec))
    # The one-string form of a merge loads faster, but its reader drops "#version…" as a header.
    merges = parts["model"]["merges"]
    if any(merge.startswith("#version") for merge in merges):
        parts["model"]["merges"] = [merge.split(" ") for merge in merges]
    whole = {"version": "1.0", "added_tokens": _added_tokens(spec), **parts}
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":"))


def _compile(text: str) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises no narrower type
        if is_interrupt(error):
            raise
        raise ModelFormatError(f"the model's tokens and merges do not fit: {error}") from error


def _vocab(spec: TokenizerSpec) -> dict[str, int]:
    _check_unique(spec)
    hidden = (TokenType.CONTROL, TokenType.UNKNOWN)
    vocab = {}
    for index, (piece, kind) in enumerate(zip(spec.tokens, spec.types, strict=True)):
        if index in spec.byte_of:
            name = f"<0x{spec.byte_of[index]:02X}>"
        elif kind in hidden or index in spec.control_ids or not piece:
            # NUL is no byte-level character, and no merge of SPM makes it part of a longer piece
            name = f"\0{index}"
        else:
            name = piece
        vocab[name] = index
    return vocab


def _check_unique(spec: TokenizerSpec) -> None:
    first: dict[str, int] = {}
    for index, piece in enumerate(spec.tokens):
        if piece and index not in spec.byte_of and first.setdefault(piece, index) != index:
            raise ModelFormatError(f"tokens {first[piece]} and {index} are both {piece!r}")


def _added_tokens(spec: TokenizerSpec) -> list[dict[str, Any]]:
    """User-defined pieces, found in any plain text; for SPM after blanks became U+2581."""
    return [
        {
            "id": index,
            "content": spec.tokens[index],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": spec.kind == "spm",
            "special": False,
        }
        for index in spec.user_defined_ids
    ]


def _read(path: Path) -> bytes | None:
    """The cached document, None if missing or damaged. Line one is the checksum of the rest."""
    try:
        data = path.read_bytes()
    except OSError:  # not there, or not ours to read: `load` says so when it cannot write either
        return None
    checksum, _, body = data.partition(b"\n")
    if checksum != hashlib.sha256(body).hexdigest().encode():
        logger.warning("tokenizer cache file %s is damaged; building it again", path)
        return None
    return body


def _with_checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body
