"""What is JSON, and what only looks like it: in a body, and as one."""

from __future__ import annotations

import pytest

from tests.server.live import Live

CHAT = "/v1/chat/completions"
WITHIN = b'{"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, "metadata": %s}'

RIGHT = [
    b"[]", b"{}", b" [ ] ", b'""', b"0", b"-0", b"-0.0", b"1e5", b"1E+2", b"1.5e-3",
    b"123456789012345", b'{"a":1,"a":2}', b'{"":0}', b'"\\"\\\\\\/\\b\\f\\n\\r\\t"',
    b'"\\u0041\\ud834\\udd1e"', b'"\\u0000"', b'"\\uffff"', b'"\x7f"', "\"é漢🙂\u2028\"".encode(),
    b"[null, true, false]", b"[" * 500 + b"]" * 500, b"\t\n\r 1 \t\n\r",
]  # fmt: skip
WRONG = [
    b"", b"[", b"]", b"[1", b"[1,]", b"[,1]", b"[1,,2]", b"[1 2]", b"[1]]", b"[1]x", b"[1:2]",
    b"(1)", b"{", b"{1:2}", b"{a:1}", b"{'a':1}", b'{"a"}', b'{"a":}', b'{"a" 1}', b'{"a":1,}',
    b'{,"a":1}', b'{"a":1 "b":2}', b'{"a"::1}', b'{"a":1}/*x*/', b"//x\n1", b"#1", b"tru", b"nul",
    b"True", b"NULL", b"undefined", b"NaN", b"-NaN", b"Infinity", b"-Infinity", b"01", b"-01",
    b"+1", b".5", b"5.", b"-", b"--1", b"1e", b"1e+", b"0x1", b"1_000", b"1.2.3", b"1 000",
    "\uff11".encode(), b"-.5", b"1ea", b'"', b'"a', b"'a'", b'"\n"', b'"\t"', b'"\x00"', b'"\x1f"',
    b'"\\x41"', b'"\\u12"', b'"\\u12G4"', b'"\\', b'"\\ "', b'"\\U0041"', b'"\xff"', b'"\xc0\xaf"',
    b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\xe2\x82"', b"\xef\xbb\xbf1", b"\xff\xfe1\x00",
    b"1\x00", b"\x0c1", "\u00a01".encode(), "\u20601".encode(), b'"a" "b"', b"[" * 200_000,
    b'{"a":' * 200_000, b"[" * 2000 + b"]" * 2000,
]  # fmt: skip


@pytest.mark.parametrize("text", RIGHT)
def test_what_is_json_is_read(live: Live, text: bytes) -> None:
    assert live.ask("POST", CHAT, WITHIN % text).status == 200


@pytest.mark.parametrize("text", WRONG)
def test_what_is_none_is_refused(live: Live, text: bytes) -> None:
    found = live.ask("POST", CHAT, WITHIN % text)
    assert (found.status, found.error[:20]) == (400, "the body is not JSON")
    assert live.ask("POST", CHAT, text).status == 400
