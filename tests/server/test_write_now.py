"""Pieces that are written to their connection at once: whose they are, and when they are not."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httptools
import pytest

from octavo.server import write_now
from octavo.server.write_now import WriteNow
from tests.gate import PATIENCE
from tests.server.live import Live, talk, until
from tests.server.wire import CLOSE, HEAD

COMPLETIONS = "/v1/completions"


class Cycle(SimpleNamespace):
    """A request whose answer has begun, in chunks."""

    def __init__(self, **changed: object) -> None:
        self.sent: list[bytes] = []
        self.flow = SimpleNamespace(write_paused=False)
        self.transport = SimpleNamespace(write=self.sent.append, is_closing=lambda: False)
        self.disconnected = self.response_complete = False
        self.chunked_encoding: bool | None = True
        vars(self).update(changed)


def written(**changed: object) -> tuple[bool, list[bytes]]:
    cycle: Any = Cycle(**changed)
    return WriteNow(cycle)(b"0123456789abcdef!"), cycle.sent


def test_a_piece_is_a_chunk_of_its_own() -> None:
    assert written() == (True, [b"11\r\n0123456789abcdef!\r\n"])


@pytest.mark.parametrize(
    "changed",
    [{"flow": SimpleNamespace(write_paused=True)}, {"chunked_encoding": False},
     {"chunked_encoding": None}, {"response_complete": True}],
)  # fmt: skip
def test_what_send_alone_can_do_is_left_to_it(changed: dict[str, object]) -> None:
    assert written(**changed) == (False, [])


def test_who_has_gone_is_written_nothing_and_not_waited_for() -> None:
    sent: list[bytes] = []
    closing = SimpleNamespace(write=sent.append, is_closing=lambda: True)
    assert written(transport=closing) == (True, [])
    assert written(disconnected=True, flow=SimpleNamespace(write_paused=True)) == (True, [])
    assert sent == []


class Read:
    """The bodies of the answers in some bytes."""

    def __init__(self, raw: bytes) -> None:
        self.bodies: list[bytes] = []
        parser = httptools.HttpResponseParser(self)
        parser.feed_data(raw)

    def on_message_begin(self) -> None:
        self.bodies.append(b"")

    def on_body(self, body: bytes) -> None:
        self.bodies[-1] += body


def texts(body: bytes) -> dict[int, str]:
    """Of each choice; the stream is whole."""
    *frames, done, nothing = body.decode().split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    found: dict[int, str] = {}
    for each in frames:
        for choice in json.loads(each.removeprefix("data: "))["choices"]:
            found[choice["index"]] = found.get(choice["index"], "") + choice["text"]
    return found


def asked(**body: object) -> tuple[bytes, dict[str, object]]:
    whole = {"prompt": "x", "ignore_eos": True, "seed": 7, **body}
    data = json.dumps({**whole, "stream": True}).encode()
    return HEAD % COMPLETIONS.encode() + b"content-length: %d\r\n" % len(data), whole


def of_whole(live: Live, body: dict[str, object]) -> dict[int, str]:
    choices = live.post(COMPLETIONS, body).json["choices"]
    return {each["index"]: each["text"] for each in choices}


def test_streams_in_one_connection_stay_apart(roomy: Live) -> None:
    requests, expected = [], []
    for seed, end in ((1, b"\r\n"), (2, b"\r\n"), (3, CLOSE)):
        head, body = asked(seed=seed, max_tokens=20, n=2)
        requests.append(head + end + json.dumps({**body, "stream": True}).encode())
        expected.append(of_whole(roomy, body))
    found = Read(talk(roomy, b"".join(requests))).bodies
    assert [texts(each) for each in found] == expected


def test_a_slow_reader_gets_all_of_it(roomy_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, left = WriteNow.__call__, []

    def noting(self: WriteNow, body: bytes) -> bool:
        if not write(self, body):
            left.append(body)
            return False
        return True

    monkeypatch.setattr(write_now.WriteNow, "__call__", noting)
    head, body = asked(max_tokens=300, n=16, logprobs=20)
    with Live(roomy_path) as live, socket.socket() as connection:
        expected = of_whole(live, body)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(PATIENCE)
        connection.connect(("127.0.0.1", live.port))
        connection.sendall(head + CLOSE + json.dumps({**body, "stream": True}).encode())
        until(lambda: bool(left))
        found = b""
        while more := connection.recv(1 << 16):
            found += more
    assert [texts(each) for each in Read(found).bodies] == [expected]
