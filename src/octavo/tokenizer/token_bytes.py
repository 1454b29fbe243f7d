"""What bytes a token of a vocabulary stands for."""

from __future__ import annotations

from octavo.tokenizer.byte_level import piece_to_bytes
from octavo.tokenizer.spec import TokenizerSpec, TokenType
from octavo.tokenizer.spm import SPACE

_UNREADABLE = "\ufffd".encode()


def bytes_of(spec: TokenizerSpec, token_id: int) -> bytes:
    """A control token stands for its name."""
    piece, kind = spec.tokens[token_id], spec.types[token_id]
    if kind == TokenType.UNKNOWN:
        return _UNREADABLE
    if token_id in spec.byte_of:
        return bytes([spec.byte_of[token_id]])
    as_it_is = token_id in spec.control_ids
    if spec.kind == "bpe" and not as_it_is and kind != TokenType.USER_DEFINED:
        return piece_to_bytes(piece)
    if spec.kind == "spm" and not as_it_is:
        piece = piece.replace(SPACE, " ")
    return piece.encode("utf-8", "surrogatepass")
