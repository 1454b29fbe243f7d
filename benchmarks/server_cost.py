"""What the server costs beside the model: CPU by token, milliseconds to the first one, and at rest.

    python -m benchmarks.server_cost MODEL [--clients 32] [--tokens 128] [--idle 60]

The server is a process of its own, and so is the load, whose CPU is counted nowhere. CPU, not time,
so that a machine that others use too tells nearly the same; what is counted as the program's is its
threads' and what the engine's thread does in it. The parts are counted in a second server: to look
at the clock around each costs as much as some of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

PROMPT = "Write a long story about the sea, and about those who live by it. "
_TICK = os.sysconf("SC_CLK_TCK")


# The server's side: counts what its threads do, and tells it when it is signalled.


class Counts:
    def __init__(self) -> None:
        self.cpu: defaultdict[str, float] = defaultdict(float)  # seconds of the calling thread
        self.forward_seconds = 0.0
        self.freed_at = 0.0  # when a request was ended early last

    def count(self, owner: Any, name: str, key: str) -> None:
        """Add the CPU that a method takes from now on."""
        method: Callable[..., Any] = getattr(owner, name)

        def counted(*given: Any, **named: Any) -> Any:
            began, at = time.thread_time(), time.monotonic()
            try:
                return method(*given, **named)
            finally:
                self.cpu[key] += time.thread_time() - began
                if key == "program":
                    self.forward_seconds += time.monotonic() - at
                if name == "finish":
                    self.freed_at = time.monotonic()

        setattr(owner, name, counted)

    def tell(self) -> None:
        names = {each.native_id: each.name for each in threading.enumerate()}
        threads: defaultdict[str, float] = defaultdict(float)
        for task in Path("/proc/self/task").iterdir():
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            name = names.get(int(task.name), "native")
            threads[name] += (int(fields[11]) + int(fields[12])) / _TICK
        told = {"cpu": self.cpu, "threads": threads, "forward": self.forward_seconds,
                "freed_at": self.freed_at}  # fmt: skip
        print(json.dumps(told), flush=True)


def run_server(model: str, *, in_parts: bool) -> None:
    from octavo import LLM, AsyncEngine
    from octavo.server.config import ServerConfig
    from octavo.server.serve import serve
    from octavo.serving.request_text import RequestText

    counts = Counts()

    def load() -> tuple[AsyncEngine, str]:
        llm = LLM(model, threads=2)
        engine = llm.loop.engine
        counts.count(engine.runner, "forward", "program")
        counts.count(engine, "finish", "finish")
        if in_parts:
            counts.count(engine, "step", "step")
            counts.count(engine.draws, "decide", "sampling")
            counts.count(RequestText, "catch_up", "detokenising")
            counts.count(RequestText, "take", "detokenising")
        return AsyncEngine(llm), "model"

    class Said:
        def ready(self, address: str, name: str) -> None:
            print(json.dumps({"port": int(address.rpartition(":")[2])}), flush=True)

        def note(self, line: str) -> None:
            pass

        def close(self) -> None:
            pass

    signal.signal(signal.SIGUSR1, lambda *_: counts.tell())
    serve(ServerConfig(port=0), load, Said())


# The side of the load.


class Server:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.port = int(self._line()["port"])

    def counts(self) -> Any:
        self._process.send_signal(signal.SIGUSR1)
        return self._line()

    def _line(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@contextmanager
def serving(model: str, *, in_parts: bool = False) -> Iterator[Server]:
    how = ["--serve", "--parts"] if in_parts else ["--serve"]
    command = [sys.executable, "-m", "benchmarks.server_cost", model, *how]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield Server(process)
        finally:
            process.terminate()


async def ask(port: int, body: object, pieces: int | None = None) -> tuple[float, float]:
    """Read a stream, or so many pieces of it; seconds to its first piece, and when it was left."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = json.dumps(body).encode()
    head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    kind = f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    began, first = time.monotonic(), 0.0
    writer.write((head + kind).encode() + data)
    while piece := await reader.read(1 << 16):
        if not first and b"data: " in piece:
            first = time.monotonic() - began
        if pieces is not None and b"data: " in piece:
            pieces -= 1
            if pieces <= 0:
                break
    left = time.monotonic()
    writer.transport.abort()
    return first, left


def body(index: int, tokens: int) -> dict[str, object]:
    return {"prompt": f"{index}: {PROMPT}", "max_tokens": tokens, "ignore_eos": True,
            "stream": True, "seed": index, "temperature": 0.7}  # fmt: skip


class Cost(NamedTuple):
    """CPU seconds that a crowd of clients cost."""

    cpu: dict[str, float]  # of what is counted
    threads: dict[str, float]
    clients: int
    tokens: int  # of each

    @property
    def program(self) -> float:
        return self.cpu["program"] + self.threads.get("native", 0)

    @property
    def outside(self) -> float:
        return sum(self.threads.values()) - self.program

    def us(self, seconds: float) -> float:
        """Microseconds a token."""
        return seconds / self.clients / self.tokens * 1e6


def cost_of_crowd(server: Server, clients: int, tokens: int) -> Cost:
    async def crowd() -> None:
        await asyncio.gather(*(ask(server.port, body(i, tokens)) for i in range(clients)))

    asyncio.run(crowd())
    before = server.counts()
    asyncio.run(crowd())
    after = server.counts()
    cpu = {key: after["cpu"][key] - before["cpu"].get(key, 0) for key in after["cpu"]}
    threads = {
        name: value - before["threads"].get(name, 0) for name, value in after["threads"].items()
    }
    return Cost(cpu, threads, clients, tokens)


def print_cost(cost: Cost) -> None:
    share = cost.outside / cost.program
    print(f"{cost.clients} streams of {cost.tokens} tokens: {share:.1%} of the program's")
    print(f"  the program: {cost.us(cost.program):.0f} us of CPU a token")
    print(f"  all else: {cost.us(cost.outside):.0f} us")


def print_parts(cost: Cost) -> None:
    cpu, threads = cost.cpu, cost.threads
    parts = {
        "the event loop (HTTP, SSE)": threads["MainThread"],
        "encoding": sum(v for name, v in threads.items() if name.startswith("octavo-text")),
        "sampling": cpu["sampling"],
        "scheduling": cpu["step"] - cpu["program"] - cpu["sampling"],
        "detokenising": cpu["detokenising"],
        "else in the engine's thread": threads["octavo-engine"] - cpu["step"] - cpu["detokenising"],
    }
    print(f"its parts, with a look at the clock around each: {cost.outside / cost.program:.1%}")
    for name, seconds in parts.items():
        print(f"  {name}: {cost.us(seconds):.1f} us, {seconds / cost.program:.2%}")


def first_token(server: Server) -> None:
    asked = {**body(0, 1), "prompt": PROMPT * 20}
    asyncio.run(ask(server.port, asked))
    beyond = []
    for _ in range(30):
        before = server.counts()["forward"]
        seconds, _ = asyncio.run(ask(server.port, asked))
        beyond.append(1e3 * (seconds - (server.counts()["forward"] - before)))
    found = f"{median(beyond):.1f} ms ({min(beyond):.1f} to {max(beyond):.1f})"
    print(f"first token of a cached prompt, beyond the program's own time: {found}")


def cancels(server: Server) -> None:
    waits = []
    for i in range(20):
        _, left = asyncio.run(ask(server.port, body(i, 500), pieces=1 + i % 5))
        while (freed := server.counts()["freed_at"]) < left:
            time.sleep(0.01)
        waits.append(1e3 * (freed - left))
    print(f"from a client's end to its blocks': {median(waits):.1f} ms (at most {max(waits):.1f})")


def idle(server: Server, seconds: float) -> None:
    before = server.counts()["threads"]
    time.sleep(seconds)
    after = server.counts()["threads"]
    used = {name: value - before.get(name, 0) for name, value in after.items()}
    share, engine = sum(used.values()) / seconds, used["octavo-engine"]
    print(f"idle for {seconds:g} s: {share:.2%} of a core; the engine's thread {engine:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--idle", type=float, default=60)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--parts", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        run_server(given.model, in_parts=given.parts)
        return
    with serving(given.model) as server:
        print_cost(cost_of_crowd(server, given.clients, given.tokens))
        first_token(server)
        cancels(server)
        idle(server, given.idle)
    with serving(given.model, in_parts=True) as server:
        print_parts(cost_of_crowd(server, given.clients, given.tokens))


if __name__ == "__main__":
    main()
