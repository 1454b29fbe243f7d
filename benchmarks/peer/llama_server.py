"""llama-server for the time of one measurement: started, offered all requests at once, stopped.

Knows its HTTP. Prompts are token ids, answers come whole: as little work beside the engine as can
be.
"""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from typing import IO, Any

from benchmarks.peer.one import PeerError, last_line
from benchmarks.peer.workloads import Workload

_HOST = "127.0.0.1"
_POLL_SECONDS = 0.1


def speed(
    command: Sequence[str], work: Workload, prompts: Sequence[Sequence[int]], seconds: float
) -> float:
    """New tokens a second of all requests. Raises PeerError."""
    port = _free_port()
    until = time.monotonic() + seconds
    with (
        tempfile.TemporaryDirectory() as folder,  # it leaves a log where it is
        tempfile.TemporaryFile("w+", errors="replace") as said,
    ):
        try:
            process = subprocess.Popen(
                [*command, "--host", _HOST, "--port", str(port)],
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=folder,
            )  # fmt: skip
        except OSError as error:
            raise PeerError(f"llama-server cannot be run: {error.strerror}") from None
        try:
            _wait(process, port, until, said)
            return _offered(port, work, prompts, until)
        finally:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, until: float, said: IO[str]) -> None:
    while time.monotonic() < until:
        if process.poll() is not None:
            said.seek(0)
            raise PeerError(f"llama-server ended: {last_line(said.read())}")
        try:
            if _ask(port, "GET", "/health", None, until)[0] == 200:
                return
        except (OSError, HTTPException):
            pass  # it does not listen yet, or another does there
        time.sleep(_POLL_SECONDS)
    raise PeerError("llama-server did not begin in time")


def _offered(port: int, work: Workload, prompts: Sequence[Sequence[int]], until: float) -> float:
    def one(prompt: Sequence[int], new: int) -> None:
        body = {
            "prompt": list(prompt), "n_predict": new, "temperature": 0, "ignore_eos": True,
            "cache_prompt": True, "stream": False,
        }  # fmt: skip
        status, answer = _ask(port, "POST", "/completion", body, until)
        if status != 200:
            raise PeerError(f"llama-server answered {status}: {answer.strip()[:200]}")
        made = json.loads(answer)["tokens_predicted"]
        if made != new:
            raise PeerError(f"llama-server: expected {new} new tokens, found {made}")

    began = time.perf_counter()
    with ThreadPoolExecutor(len(prompts)) as threads:
        asked = [threads.submit(one, p, r.new) for p, r in zip(prompts, work.requests, strict=True)]
    seconds = time.perf_counter() - began
    try:
        for each in asked:
            each.result()
    except (OSError, HTTPException, ValueError, KeyError) as error:
        raise PeerError(f"llama-server: {type(error).__name__}: {error}") from None
    return work.new_tokens / seconds


def _ask(
    port: int, method: str, path: str, body: dict[str, Any] | None, until: float
) -> tuple[int, str]:
    connection = HTTPConnection(_HOST, port, timeout=max(1.0, until - time.monotonic()))
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        text = response.read()
    finally:
        connection.close()
    return response.status, text.decode(errors="replace")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((_HOST, 0))
        return int(found.getsockname()[1])
