"""What stands around bodies in a connection: heads, chunks, trailers, and what is no HTTP."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from octavo.server import http_protocol
from tests.gate import PATIENCE
from tests.server.live import Live, slowed, talk, until
from tests.server.wire import CLOSE, HEAD, HEALTH, heads, held_connections

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HI: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}


def test_trailers_and_chunks_without_end_are_closed(live: Live) -> None:
    begin = HEAD % CHAT.encode() + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"
    for endless in (b"0\r\n" + b"x-y: 1\r\n" * 400, b"0\r\nx: ", b"1;"):
        talk(live, begin + endless, *[b"x-y: 1\r\n" * 1000] * 20)
        until(lambda: held_connections(live) == 0)


def test_fields_after_a_body_are_not_read(live: Live) -> None:
    body = json.dumps(HI).encode()
    chunk = b"%x\r\n%s\r\n0\r\nhost: evil\r\nx-a: 1\r\n\r\n" % (len(body), body)
    head = HEAD % CHAT.encode() + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    assert b"200 OK" in talk(live, head + chunk)


def test_blank_lines_do_not_hold_a_connection(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.1)
    with socket.create_connection(("127.0.0.1", live.port), PATIENCE) as connection:
        connection.sendall(HEALTH + b"\r\n")
        assert b"200 OK" in connection.recv(1000)
        until(lambda: not takes(connection, b"\r\n"))


def takes(connection: socket.socket, data: bytes) -> bool:
    try:
        connection.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def test_a_refused_body_is_not_read_for_ever(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.1)
    foreign = (HEAD % CHAT.encode()).replace(b"localhost", b"evil.example")
    found = talk(live, foreign + b"content-length: 1000\r\n\r\n")
    assert b"403 Forbidden" in found
    assert b"408" not in found


def test_who_sends_too_much_is_told(live: Live) -> None:
    """The rest of it is read: else the answer would be lost with the connection."""
    size = live.service.config.max_body + 1
    for length in (b"content-length: %d\r\n" % size, b"transfer-encoding: chunked\r\n"):
        chunk = b"" if b"content" in length else b"%x\r\n" % size
        with socket.create_connection(("127.0.0.1", live.port), PATIENCE) as connection:
            connection.sendall(HEAD % CHAT.encode() + length + b"\r\n" + chunk + b" " * size)
            assert b"413 Request Entity Too Large" in connection.recv(1000)


def test_requests_that_wait_in_a_connection_are_few(live: Live) -> None:
    found = talk(live, (HEALTH + b"\r\n") * 4 + HEALTH + CLOSE)
    assert found.count(b"200 OK") == 5
    talk(live, (HEALTH + b"\r\n") * 5000)
    until(lambda: held_connections(live) == 0)


def completion(max_tokens: int, **more: object) -> bytes:
    """A request whose answer has so many tokens."""
    asked = {"prompt": "x", "ignore_eos": True, "max_tokens": max_tokens, **more}
    body = json.dumps(asked).encode()
    return HEAD % COMPLETIONS.encode() + b"content-length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize("behind", [HEALTH + b"\r\n", b"no http\r\n\r\n"])
def test_a_client_that_leaves_with_more_behind_a_request_ends_it(
    live: Live, monkeypatch: pytest.MonkeyPatch, behind: bytes
) -> None:
    monkeypatch.setattr(live.llm.loop.engine, "step", slowed(live, 0.05))
    with socket.create_connection(("127.0.0.1", live.port), PATIENCE) as connection:
        connection.sendall(completion(110) + behind)
        until(lambda: live.service.loaded.admission.num_open == 1)
    begun = live.engine.totals.generated_tokens
    until(lambda: live.service.loaded.admission.num_open == 0)
    assert live.engine.totals.generated_tokens - begun < 100


def test_half_open_connections_delay_nobody(tiny_path: Path) -> None:
    with Live(tiny_path) as live:
        half = [socket.create_connection(("127.0.0.1", live.port)) for _ in range(500)]
        for each in half:
            each.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: loc")
        until(lambda: held_connections(live) == 500)
        assert live.post(CHAT, HI).status == 200
        for each in half:
            each.close()
        until(lambda: held_connections(live) == 0)


def test_64_mib_of_headers_take_no_memory(live: Live) -> None:
    talk(live, HEALTH, b"x: " + b"a" * (128 << 10))
    before = resident()
    talk(live, HEALTH, *[b"x-y: " + b"a" * 8000 + b"\r\n"] * (64 << 20 >> 13))
    assert resident() - before < 1 << 20


def resident() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = [each for each in status if each.startswith("RssAnon")]
    return int(line.split()[1]) << 10


def test_a_body_is_never_read_as_a_request(live: Live) -> None:
    """An `upgrade` is not followed, so that what comes after its head is its body."""
    inner = b'{"tokens": [1]}\r\nGET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n'
    asked = HEAD % b"/detokenize" + b"upgrade: h2c\r\nconnection: upgrade\r\n"
    length = b"content-length: %d\r\n\r\n"
    after = HEALTH + CLOSE
    smuggled = talk(live, asked + length % len(inner), inner + after)
    assert heads(smuggled) == [400, 200]  # its whole body is no JSON
    body = b'{"tokens": [1]}'
    plain = talk(live, HEAD % b"/detokenize" + length % len(body) + body + after)
    for pieces in (
        (asked + length % len(body) + body + after,),
        (asked + length % len(body), body, after),
        (asked + b"transfer-encoding: chunked\r\n\r\nf\r\n" + body + b"\r\n0\r\n\r\n" + after,),
        (*(bytes([each]) for each in asked + length % len(body) + body), after),
    ):
        found = talk(live, *pieces)
        assert heads(found) == heads(plain) == [200, 200]
        assert found.split(b"\r\n\r\n")[1][:14] == plain.split(b"\r\n\r\n")[1][:14]


def test_a_client_that_knows_no_chunks_gets_none(live: Live) -> None:
    body = json.dumps({**HI, "stream": True}).encode()
    head = b"content-length: %d\r\nconnection: keep-alive\r\n\r\n" % len(body)
    asked = (HEAD % CHAT.encode()).replace(b"HTTP/1.1", b"HTTP/1.0") + head + body
    told, _, stream = talk(live, asked).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in told
    assert b"connection: close" in told
    assert stream.startswith(b"data: {")
    assert stream.endswith(b"\n\ndata: [DONE]\n\n")
    whole = talk(live, HEALTH.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n")
    assert whole.endswith(b'\r\n\r\n{"status":"ok"}')
    assert b"content-length: 15\r\n" in whole


def test_a_tunnel_is_refused(live: Live) -> None:
    for target in (b"localhost:80", b"example.com:443"):
        found = talk(live, b"CONNECT " + target + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", HEALTH)
        assert heads(found) == [400]


NO_ADDRESS = b"GET http://:80/ HTTP/1.1\r\nhost: localhost\r\n\r\n"
NO_HTTP = [
    NO_ADDRESS,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS, to a port without
    b"hello\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    HEALTH + b"x\x00y: 1\r\n\r\n",
    HEALTH + b"content-length: one\r\n\r\n",
    HEALTH + b"content-length: 1\r\ncontent-length: 2\r\n\r\n",
    HEAD % CHAT.encode() + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
]


@pytest.mark.parametrize("sent", NO_HTTP)
def test_what_is_no_http_is_told_as_an_error_of_the_api(live: Live, sent: bytes) -> None:
    before = live.service.tally.refusals[400]
    head, _, body = talk(live, sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/json" in head
    assert b"connection: close" in head
    error = json.loads(body)["error"]
    assert error == {
        "message": "this is no request of HTTP/1.1", "type": "invalid_request_error",
        "param": None, "code": None,
    }  # fmt: skip
    assert live.service.tally.refusals[400] == before + 1


# Behind a request: what is refused, and by which status. The last begins as one, and is none.
REFUSED = [
    (b"no http\r\n\r\n", 400),
    (HEALTH + b"\r\n" + b"no http\r\n\r\n" + HEALTH + CLOSE, 400),
    (b"GET /%s HTTP/1.1\r\n" % (b"x" * (65 << 10)), 431),
    (HEALTH + b"x: y\r\n" * 101 + b"\r\n", 431),
    (b"CONNECT localhost:80 HTTP/1.1\r\nhost: localhost\r\n\r\n" + HEALTH + b"\r\n", 400),
    (NO_ADDRESS, 400),
    (HEAD % b"/tokenize" + b"transfer-encoding: gzip, chunked\r\n\r\n3\r\n{}\n\r\n", 400),
    (HEAD % b"/tokenize" + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\nzz\r\n", 400),
    ((HEALTH + b"\r\n") * 5000, 429),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("behind", "status"), REFUSED)
def test_what_is_refused_is_told_behind_all_answers_before_it(
    live: Live, monkeypatch: pytest.MonkeyPatch, behind: bytes, status: int, stream: bool
) -> None:
    monkeypatch.setattr(live.llm.loop.engine, "step", slowed(live, 0.01))
    request = completion(10, stream=stream)
    before = live.service.tally.refusals[status]
    for pieces in ((request + behind,), (request, behind)):
        found = talk(live, *pieces)
        first, *others, last = heads(found)
        assert (first, last, set(others) - {200}) == (200, status, set())
        assert found.count(b"[DONE]") == stream
        assert found.count(b"connection: close") == 1
        until(lambda: held_connections(live) == 0)
    assert live.service.tally.refusals[status] == before + 2


def test_a_head_that_is_late_behind_an_answer_waits_for_it(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.05)
    monkeypatch.setattr(live.llm.loop.engine, "step", slowed(live, 0.02))
    assert heads(talk(live, completion(20) + HEALTH)) == [200, 408]
