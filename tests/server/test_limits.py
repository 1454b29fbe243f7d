"""What bounds a server: heads, bodies, places, connections; and clients that leave."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from octavo.protocol.common import ApiError
from octavo.server import http_protocol, intake, sse
from octavo.server.admission import Admission
from tests.gate import PATIENCE
from tests.server.live import Live, slowed, talk, until
from tests.serving.stories import assert_nothing_held

CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}


class Answer:
    def __init__(self) -> None:
        self.is_waiting = True


def admission(most: int, tokens: int = 100, *, shared: bool = False) -> Admission:
    return Admission(most, tokens, shared=shared, seconds=lambda count: count / 10)


def test_a_place_is_given_back_when_what_it_waits_for_begins() -> None:
    gate, one = admission(1), Answer()
    with gate.enter("a") as place:
        with pytest.raises(ApiError, match="1 request waiting already, and at most 1") as caught:
            gate.enter("b")
        assert (caught.value.status, caught.value.retry_after) == (429, 1)
        place.wait_for([one])
        assert gate.num_waiting == 1
        one.is_waiting = False
        with gate.enter("b"):
            assert (gate.num_open, gate.num_waiting) == (2, 1)
    assert gate.num_open == 0


def test_of_several_tenants_one_has_half() -> None:
    gate = admission(4, shared=True)
    for _ in range(2):
        gate.enter("a").take_tokens(25)
    with pytest.raises(ApiError):
        gate.enter("a")
    told = "50 tokens waiting already, this has 51, and at most 100 may"
    with pytest.raises(ApiError, match=told) as caught:
        gate.enter("b").take_tokens(51)
    assert caught.value.retry_after == 5  # 50 tokens at 10 a second
    gate.enter("b").take_tokens(50)


def test_an_idle_server_takes_any_prompt() -> None:
    gate = admission(4, tokens=10)
    place = gate.enter("a")
    place.take_tokens(1000)
    with pytest.raises(ApiError, match="1,000 tokens waiting already"):
        gate.enter("a").take_tokens(1)


def test_a_head_has_bounds(live: Live) -> None:
    start = b"GET /health HTTP/1.1\r\nhost: localhost\r\n"
    many = b"".join(b"x-%d: 1\r\n" % i for i in range(101))
    assert b"431 Refused" in talk(live, start, many, b"\r\n")
    assert b"431 Refused" in talk(live, start, *[b"x: " + b"a" * 8000 + b"\r\n"] * 20)
    assert b"431 Refused" in talk(live, start, b"x: ", *[b"a" * 8000] * 20)
    assert b"431 Refused" in talk(live, b"GET /", *[b"a" * 8000] * 20)
    for length in (1 << 16, 70_000):  # whole before it is counted
        assert b"431 Refused" in talk(live, b"GET /" + b"a" * length + b" HTTP/1.1\r\n\r\n")
    close = b"host: 127.0.0.1\r\nconnection: close\r\n\r\n"
    whole = b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nx: " + b"a" * 66_000 + b"\r\n\r\n"
    twice = talk(live, whole, b"GET /health HTTP/1.1\r\n" + close)
    assert twice.count(b"200 OK") == 2, "what was answered is not refused behind that"
    for _ in range(2):  # each head of a connection has its own
        close = b"connection: close\r\n\r\n"
        twice = talk(live, start + b"\r\n", start + b"y: " + b"a" * 60_000 + b"\r\n" + close)
        assert twice.count(b"200 OK") == 2


def test_a_head_that_does_not_end_is_closed(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.05)
    assert b"408 Refused" in talk(live)
    assert b"408 Refused" in talk(live, b"GET /health HTTP/1.1\r\nhost: loc")


def test_a_body_has_bounds(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Live(tiny_path, max_body=2000) as live:
        large = live.ask("POST", CHAT, b" " * 2001)
        assert large.status == 413
        assert "2,000 bytes" in large.error
        head = b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        close = b"connection: close\r\n"  # or it waits for another request
        chunked = head % CHAT.encode() + close + b"transfer-encoding: chunked\r\n\r\n"
        assert b"413 Request" in talk(live, chunked, *[b"3e8\r\n" + b" " * 1000 + b"\r\n"] * 3)
        monkeypatch.setattr(intake, "BODY_SECONDS", 0.05)
        zeros = head % CHAT.encode() + close + b"content-length: " + b"0" * 5000
        assert talk(live, zeros + b"2\r\n\r\n{}")[9:12] == b"400"
        assert talk(live, zeros + b"2001\r\n\r\n{}")[9:12] == b"413"
        slow = talk(live, head % CHAT.encode() + b"content-length: 100\r\n\r\n{")
        assert b"408 Request Timeout" in slow
        monkeypatch.setattr(intake, "BODIES", 0)
        monkeypatch.setattr(intake, "BODY_SECONDS", PATIENCE)
        assert live.post(CHAT, HI).status == 429
        until(lambda: live.service.body_bytes == 0)


def test_connections_are_counted(tiny_path: Path) -> None:
    with Live(tiny_path, max_connections=1) as live:
        first = live.connect()
        first.request("GET", "/health")
        assert first.getresponse().read()
        assert b"503 Refused" in talk(live)
        first.close()


def test_a_client_that_leaves_ends_its_request(live: Live) -> None:
    body = b'{"messages": [{"role": "user", "content": "hi"}], "ignore_eos": true%s}'
    for more in (b"", b', "stream": true', b', "n": 4'):
        content = body % more
        head = b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        length = b"content-length: %d\r\n\r\n" % len(content)
        with socket.create_connection(("127.0.0.1", live.port)) as connection:
            connection.sendall(head % CHAT.encode() + length + content)
            until(lambda: live.service.loaded.admission.num_open == 1)
        until(lambda: live.service.loaded.admission.num_open == 0)
    until(lambda: not live.llm.loop.engine.has_unfinished)
    assert_nothing_held(live.llm)
    assert live.service.tally.streams == live.service.body_bytes == 0


def test_an_idle_server_takes_as_many_prompts_as_a_body_may_have(live: Live) -> None:
    found = live.post("/v1/completions", {"prompt": ["x"] * 2048, "max_tokens": 1})
    assert (found.status, len(found.json["choices"])) == (200, 2048)
    found = live.post("/v1/embeddings", {"input": ["x"] * 2048})
    assert (found.status, len(found.json["data"])) == (200, 2048)


def test_silence_has_pings(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "PING", 0.05)
    monkeypatch.setattr(live.llm.loop.engine, "step", slowed(live, 0.2))
    found = live.post(CHAT, {**HI, "stream": True})
    assert found.body.startswith(b"data: ")
    assert b"\n\n: ping\n\n" in found.body
