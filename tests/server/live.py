"""A server on a port of its own, in a thread of the test's process."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest

from octavo import LLM, AsyncEngine
from octavo.engine.step import StepResult
from octavo.server.admission import PROMPTS_WAITING
from octavo.server.auth import Keys
from octavo.server.config import ServerConfig
from octavo.server.serve import make_server
from octavo.server.service import Service
from tests.gate import PATIENCE
from tests.serving.stories import assert_nothing_held


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]  # names in small letters
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of its events; what is no JSON (`[DONE]`) as text."""
        lines = [line for line in self.body.decode().split("\n") if line.startswith("data: ")]
        return [_data(line.removeprefix("data: ")) for line in lines]

    @property
    def error(self) -> str:
        message: str = self.json["error"]["message"]
        return message


class Client:
    """Whoever asks a server by its port."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, **headers)

    def post(self, path: str, body: object, **headers: str) -> Answer:
        return self.ask("POST", path, json.dumps(body).encode(), **headers)

    def ask(self, method: str, path: str, body: bytes | None, **headers: str) -> Answer:
        """Header names are given with _ for -."""
        connection = self.connect()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        kind = {} if body is None else {"content-type": "application/json"}
        connection.request(method, path, body, {**kind, **given})
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        answer = Answer(response.status, found, response.read())
        connection.close()
        return answer


class Live(Client):
    """Serves a model until it is closed. Other threads talk to it by its port."""

    def __init__(
        self,
        path: Path,
        *,
        keys: Keys | None = None,
        rows: int = 512,
        port: int = 0,
        sliding: int | None = None,
        **options: Any,
    ) -> None:
        """`rows`: tokens that a step computes at most; `port` 0: one that is free; `sliding`: the
        tokens of a context that slides."""
        self.llm = LLM(
            path, threads=1, block_size=16, max_batch_tokens=rows, sliding_context=sliding
        )
        self.port = port
        self.keys = keys or Keys()
        self.options = options
        self.service: Service
        self.engine: AsyncEngine
        self.loop: asyncio.AbstractEventLoop
        self._opened: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.port = self._opened.result(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self._end.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        assert_nothing_held(self.llm)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._opened.done():
                raise
            self._opened.set_exception(error)

    async def _serve(self) -> None:
        self.loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self.port))
            self.service = Service(ServerConfig(**self.options), self.keys)
            server = make_server(self.service)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            async with AsyncEngine(self.llm, max_waiting=PROMPTS_WAITING) as self.engine:
                self.service.open(self.engine, "tiny", None)
                while not server.started:
                    await asyncio.sleep(0.001)
                self._opened.set_result(listener.getsockname()[1])
                await self._end.wait()
                self.service.closing.set()
            server.should_exit = True
            await serving


def talk(live: Client, *pieces: bytes) -> bytes:
    """Send bytes as they are; give all that comes back."""
    with socket.create_connection(("127.0.0.1", live.port), PATIENCE) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
        found = b""
        try:
            while data := connection.recv(1 << 16):
                found += data
        except ConnectionResetError:
            pass
        return found


def slowed(live: Live, seconds: float) -> Callable[[], StepResult]:
    step = live.llm.loop.engine.step

    def slow() -> StepResult:
        time.sleep(seconds)
        return step()

    return slow


def leave(
    live: Live, patch: pytest.MonkeyPatch, body: Mapping[str, object], **headers: str
) -> None:
    """Begin to read a stream that takes long, and close the connection."""
    with patch.context() as slow:
        slow.setattr(live.llm.loop.engine, "step", slowed(live, 0.02))
        connection = live.connect()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        data = json.dumps({"ignore_eos": True, "max_tokens": 100, "stream": True, **body})
        kind = {"content-type": "application/json"}
        connection.request("POST", "/v1/completions", data, {**kind, **given})
        response = connection.getresponse()
        assert response.read(6) == b"data: "
        response.close()
        connection.close()
        until(lambda: live.service.loaded.admission.num_open == 0)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def _data(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
