"""Files of others: the marks that editors put first, the ends of lines, and what is no text."""

from __future__ import annotations

import pytest

from octavo.errors import UsageError
from octavo.given_text import decode, without_mark


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"", ""),
     (b"h\xc3\xa4h\n", "häh\n"),
     (b"\xef\xbb\xbfone\r\ntwo\r\n", "one\ntwo\n"),
     (b"\xef\xbb\xbf\xef\xbb\xbfx", "\ufeffx"),  # the second is a character of the text
     (b"a\rb\n\r", "a\rb\n\r")],  # alone it ends no line
)  # fmt: skip
def test_a_mark_goes_and_lines_end_with_a_newline(data: bytes, text: str) -> None:
    assert decode("it", data) == text


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("utf-16-le", "UTF-16"), ("utf-16-be", "UTF-16"), ("utf-32-le", "UTF-32"),
     ("utf-32-be", "UTF-32")],
)  # fmt: skip
def test_another_encoding_says_what_it_is(encoding: str, name: str) -> None:
    for read in (decode, without_mark):
        with pytest.raises(UsageError, match=f"^the file is {name}: save it as UTF-8$"):
            read("the file", "\ufeffhi".encode(encoding))


def test_what_is_no_text_is_told_by_its_place_in_the_file() -> None:
    with pytest.raises(UsageError, match="the file is not UTF-8 at byte 5"):
        decode("the file", b"\xef\xbb\xbfab\xff")
