"""TLS: requests over it, and connections that never come to one."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from octavo.server import handshake
from tests.gate import PATIENCE
from tests.server.live import Live, talk, until
from tests.server.wire import CLOSE, HEALTH, heads, held_connections

FILES = Path(__file__).parent / "tls"
TLS: Any = {"tls_certificate": str(FILES / "certificate.pem"), "tls_key": str(FILES / "key.pem")}
CHAT = "/v1/chat/completions"
HI: Any = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "seed": 1}


@pytest.fixture(scope="module")
def secured(tiny_path: Path) -> Iterator[Live]:
    with Live(tiny_path, max_connections=4, **TLS) as found:
        yield found


def context() -> ssl.SSLContext:
    """Of a client that takes the certificate of these tests, which nobody has signed."""
    found = ssl.create_default_context()
    found.check_hostname, found.verify_mode = False, ssl.CERT_NONE
    return found


def connect(live: Live) -> http.client.HTTPSConnection:
    return http.client.HTTPSConnection("127.0.0.1", live.port, timeout=PATIENCE, context=context())


def test_a_chat_whole_and_in_pieces(secured: Live) -> None:
    connection = connect(secured)
    own = {"content-type": "application/json", "origin": f"https://127.0.0.1:{secured.port}"}
    texts = []
    for stream in (False, True):
        connection.request("POST", CHAT, json.dumps({**HI, "stream": stream}), own)
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, body
        if not stream:
            texts.append(json.loads(body)["choices"][0]["message"]["content"])
            continue
        *events, done = [each for each in body.decode().split("\n\n") if each]
        deltas = [json.loads(each[6:])["choices"][0]["delta"] for each in events]
        texts.append("".join(each.get("content") or "" for each in deltas))
        assert done == "data: [DONE]"
    assert texts[0] == texts[1]
    foreign = {**own, "origin": f"http://127.0.0.1:{secured.port}"}
    connection.request("POST", CHAT, json.dumps(HI), foreign)
    assert connection.getresponse().status == 403
    connection.close()
    until(lambda: held_connections(secured) == 0)


def test_a_request_that_comes_with_the_end_of_the_handshake_is_answered(secured: Live) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    secure = context().wrap_bio(incoming, outgoing)
    with socket.create_connection(("127.0.0.1", secured.port), PATIENCE) as connection:
        while True:
            try:
                secure.do_handshake()
                break
            except ssl.SSLWantReadError:
                connection.sendall(outgoing.read())
                incoming.write(connection.recv(1 << 16))
        secure.write(HEALTH + CLOSE)
        connection.sendall(outgoing.read())
        found = b""
        while b"ok" not in found:
            incoming.write(connection.recv(1 << 16))
            with contextlib.suppress(ssl.SSLWantReadError):
                while piece := secure.read(1 << 16):  # a record; several may have come
                    found += piece
    assert heads(found) == [200]
    until(lambda: held_connections(secured) == 0)


def test_handshakes_count_as_connections(secured: Live) -> None:
    silent = [socket.create_connection(("127.0.0.1", secured.port), PATIENCE) for _ in range(4)]
    until(lambda: held_connections(secured) == 4)
    before = secured.service.tally.refusals[503]
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(secured).connect()
    assert secured.service.tally.refusals[503] == before + 1
    silent.pop().close()
    until(lambda: held_connections(secured) == 3)
    connection = connect(secured)
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
    connection.close()
    for each in silent:
        each.close()
    until(lambda: held_connections(secured) == 0)


def test_a_handshake_has_its_time(secured: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "SECONDS", 0.1)
    for begun in (b"", b"\x16\x03\x01\x02\x00\x01"):
        assert talk(secured, begun) == b""
        until(lambda: held_connections(secured) == 0)


def test_what_is_no_tls_is_closed(secured: Live) -> None:
    assert b"HTTP" not in talk(secured, HEALTH + CLOSE)
    until(lambda: held_connections(secured) == 0)
