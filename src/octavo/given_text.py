"""Text that people hand over in files and pipes, from whatever editor.

Comes in: bytes, or text in which Python hides those that are no UTF-8. Goes out: text, or the bytes
of it, without the mark (BOM) that some editors put first. UTF-8 alone is taken; UTF-16 and UTF-32,
which their marks tell, are refused by name.
"""

from __future__ import annotations

import codecs

from octavo.errors import UsageError

_OTHERS = (  # UTF-32 first, whose mark begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_HIDDEN_UTF16 = ("\udcff\udcfe", "\udcfe\udcff")


def without_mark(what: str, data: bytes) -> bytes:
    """`data` is the beginning of `what`, or all of it. Raises UsageError."""
    for mark, encoding in _OTHERS:
        if data.startswith(mark):
            raise UsageError(f"{what} is {encoding}: save it as UTF-8")
    return data.removeprefix(codecs.BOM_UTF8)


def decode(what: str, data: bytes) -> str:
    r"""All of `what`, each line ended by \n. Raises UsageError with the place of what is no
    text."""
    rest = without_mark(what, data)
    try:
        return rest.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        place = error.start + len(data) - len(rest)
        raise UsageError(f"{what} is not UTF-8 at byte {place:,}") from None


def check_utf8(what: str, text: str) -> str:
    """`text`, unless bytes of the command line were not UTF-8: Python hides those in surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        if text.startswith(_HIDDEN_UTF16):
            raise UsageError(f"{what} is UTF-16: give it as UTF-8") from None
        raise UsageError(f"{what} is not UTF-8 at character {error.start + 1}") from None
    return text
