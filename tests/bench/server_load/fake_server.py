"""A server that sends what a test has written, byte for byte, and keeps what it was asked.

Each connection is one request. What is sent for a path is the next of its answers, the last one
again and again; `HANG` keeps a connection open and sends no more.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tests.gate import PATIENCE

HANG = b"\0hang"
_TLS_HELLO = b"\x16\x03"
OK = b"HTTP/1.1 200 OK\r\nconnection: close\r\n"


def answer(body: bytes | str, status: str = "200 OK", *more: str) -> bytes:
    data = body if isinstance(body, bytes) else body.encode()
    head = [f"HTTP/1.1 {status}", f"content-length: {len(data)}", "connection: close", *more]
    return "\r\n".join([*head, "", ""]).encode() + data


def stream(*pieces: str, whole: bool = True) -> bytes:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (piece.encode() for piece in pieces))
    head = OK + b"transfer-encoding: chunked\r\ncontent-type: text/event-stream\r\n\r\n"
    return head + chunks + (b"0\r\n\r\n" if whole else b"")


def text(said: str) -> str:
    return f"data: {json.dumps({'choices': [{'text': said}]})}\n\n"


def usage(prompt: int = 5, answer: int = 2) -> str:
    told = {"prompt_tokens": prompt, "completion_tokens": answer}
    return f"data: {json.dumps({'choices': [], 'usage': told})}\n\n"


DONE = "data: [DONE]\n\n"
WHOLE = stream(text("a"), text("b"), usage(), DONE)
MODELS = answer('{"object": "list", "data": [{"id": "m"}]}')


class FakeServer:
    def __init__(self, listener: socket.socket, answers: dict[str, Sequence[bytes]]) -> None:
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.heads: list[str] = []
        self.bodies: list[Any] = []
        self.held: list[socket.socket] = []
        self.asked = threading.Event()  # by a request that hangs
        self._listener = listener
        self._answers = {path: list(each) for path, each in answers.items()}

    def serve(self) -> None:
        """Until its listener is closed."""
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(PATIENCE)
            self.held.append(connection)
            self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (piece := connection.recv(1 << 16)):
                return
            data += piece
            if data.startswith(_TLS_HELLO):  # as a server does that speaks HTTP alone
                connection.sendall(answer("no HTTP", "400 Bad Request"))
                connection.close()
                return
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
        while len(body) < length:
            body += connection.recv(1 << 16)
        self.heads.append(head.decode())
        if body:
            self.bodies.append(json.loads(body))
        answers = self._answers[head.split(b" ")[1].decode()]
        sent = answers.pop(0) if len(answers) > 1 else answers[0]
        connection.sendall(sent.removesuffix(HANG))
        if sent.endswith(HANG):
            self.asked.set()
        else:
            connection.close()


@contextmanager
def serving(
    *answers: bytes, models: bytes = MODELS, path: str = "/v1/completions"
) -> Iterator[FakeServer]:
    """A server with these answers to what is asked of `path`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = FakeServer(listener, {"/v1/models": [models], path: answers})
        thread = threading.Thread(target=server.serve)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)
            for each in server.held:
                each.close()
