"""A sentencepiece processor for a spec: the oracle for ids of kind spm.

Writes the ModelProto's wire format by hand (four field kinds), so that no protobuf package is
needed. Numbers are the field numbers of sentencepiece_model.proto.
"""

from __future__ import annotations

import struct

from sentencepiece import SentencePieceProcessor

from octavo.tokenizer import TokenizerSpec, TokenType


def processor(spec: TokenizerSpec) -> SentencePieceProcessor:
    """Sentencepiece over the pieces of `spec`; it adds neither BOS nor EOS."""
    unk_id = spec.unk_id if spec.unk_id is not None else 0
    pieces = b"".join(_message(1, _piece(spec, index, unk_id)) for index in range(len(spec.tokens)))
    ids = [(40, unk_id), (41, spec.bos_id), (42, spec.eos_id), (43, spec.pad_id)]
    trainer = _int(3, 2) + _int(35, int(TokenType.BYTE in spec.types))  # BPE, byte fallback
    trainer += b"".join(_int(field, -1 if index is None else index) for field, index in ids)
    normalizer = _message(1, b"identity") + _int(3, int(spec.add_space_prefix)) + _int(4, 0)
    proto = pieces + _message(2, trainer) + _message(3, normalizer + _int(5, 1))
    return SentencePieceProcessor(model_proto=proto)


def _piece(spec: TokenizerSpec, index: int, unk_id: int) -> bytes:
    assert spec.scores is not None
    kind = spec.types[index]
    text = spec.tokens[index]
    if kind == TokenType.USER_DEFINED:
        text = text.replace(" ", "\u2581")  # converters write blanks into user-defined pieces
    if index == unk_id:
        kind = TokenType.UNKNOWN  # gemma's file calls it a control token; sentencepiece wants one
    return _message(1, text.encode()) + _float(2, spec.scores[index]) + _int(3, kind)


def _varint(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _message(field: int, body: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(body)) + body
