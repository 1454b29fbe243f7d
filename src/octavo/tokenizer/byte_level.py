"""The printable stand-ins that byte-level BPE vocabularies use for the 256 bytes (as GPT-2 did).

Bytes that print as one visible character stand for themselves; the other 68 take U+0100 onwards.
"""

from __future__ import annotations

from functools import cache


@cache
def byte_to_char() -> tuple[str, ...]:
    """(256,) one character for each byte."""
    chars = []
    spare = 256
    for byte in range(256):
        visible = 0x21 <= byte <= 0x7E or (0xA1 <= byte <= 0xFF and byte != 0xAD)
        chars.append(chr(byte if visible else spare))
        spare += not visible
    return tuple(chars)


@cache
def char_to_byte() -> dict[str, bytes]:
    return {char: bytes([byte]) for byte, char in enumerate(byte_to_char())}


def piece_to_bytes(piece: str) -> bytes:
    """The bytes a piece stands for; a character outside the table stands for its own UTF-8."""
    table = char_to_byte()
    return b"".join(table.get(char) or char.encode("utf-8", "surrogatepass") for char in piece)
