"""Where a body ends: what two readers may take for two places is no request, so that nobody behind
a proxy speaks for another.
"""

from __future__ import annotations

import pytest

from tests.server.live import Live, talk
from tests.server.wire import CLOSE, HEAD, HEALTH, heads

BODY = b'{"tokens":[1]}'
LENGTH = b"content-length: %d\r\n" % len(BODY)
CHUNKED = b"transfer-encoding: chunked\r\n"
CHUNK = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)


@pytest.mark.parametrize("fields", [LENGTH, CHUNKED, b"Transfer-Encoding:  CHUNKED \r\n"])
def test_one_length_or_chunks(live: Live, fields: bytes) -> None:
    body = BODY if fields == LENGTH else CHUNK
    asked = HEAD % b"/detokenize" + fields + b"\r\n" + body
    assert heads(talk(live, asked + HEALTH + CLOSE)) == [200, 200]


@pytest.mark.parametrize(
    "fields",
    [LENGTH * 2, LENGTH + b"content-length: 3\r\n", b"content-length: 14, 14\r\n",
     b"content-length: +14\r\n", b"content-length: -1\r\n", b"content-length: 0x0e\r\n",
     b"content-length: \r\n", b"content-length: 99999999999999999999999\r\n",
     b"content-length : 14\r\n", b"x: a\r\n b\r\n" + LENGTH, b"x: a\r" + LENGTH,
     b"x: a\0b\r\n" + LENGTH, b"x: a\n" + LENGTH],
)  # fmt: skip
def test_other_lengths_are_refused(live: Live, fields: bytes) -> None:
    asked = HEAD % b"/detokenize" + fields + b"\r\n" + BODY
    assert heads(talk(live, asked + HEALTH + CLOSE)) == [400]


@pytest.mark.parametrize(
    "fields",
    [LENGTH + CHUNKED, CHUNKED + LENGTH, CHUNKED * 2,
     *(b"transfer-encoding: " + each + b"\r\n" for each in (
         b"xchunked", b"chunked, identity", b"identity, chunked", b"gzip, chunked", b"gzip",
         b"\x0bchunked", b"chunked;x=1", b"")),
     b"transfer-encoding : chunked\r\n", b"x: a\r\n\t" + CHUNKED],
)  # fmt: skip
def test_other_codings_are_refused(live: Live, fields: bytes) -> None:
    asked = HEAD % b"/detokenize" + fields + b"\r\n" + CHUNK
    assert heads(talk(live, asked + HEALTH + CLOSE)) == [400]


def test_what_speaks_http_1_0_knows_no_chunks(live: Live) -> None:
    head = (HEAD % b"/detokenize").replace(b"1.1", b"1.0") + b"connection: keep-alive\r\n"
    assert heads(talk(live, head + CHUNKED + b"\r\n" + CHUNK + HEALTH + CLOSE)) == [400]


@pytest.mark.parametrize(
    "chunk",
    [b"ffffffffffffffffff\r\n", b"-1\r\n", b"0x0e\r\n" + BODY, b"e\n" + BODY, b" e\r\n" + BODY,
     b"e\r\n" + BODY + b"xx0\r\n\r\n"],
)  # fmt: skip
def test_chunks_that_are_none_end_the_connection(live: Live, chunk: bytes) -> None:
    found = heads(talk(live, HEAD % b"/detokenize" + CHUNKED + b"\r\n" + chunk + HEALTH + CLOSE))
    assert found in ([400], [])
