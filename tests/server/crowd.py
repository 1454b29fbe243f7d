"""A crowd of clients that a server in another process has at once: some read, some are slow, some
stall or leave, some send what is none; and an engine that fails now and then.

As a program it runs for longer, with any model:
`python -m tests.server.crowd MODEL --clients 200 --seconds 180`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tests.gate import PATIENCE
from tests.server.apart import Apart

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"],
          "additionalProperties": False}  # fmt: skip
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {
    "type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"],
    "additionalProperties": False}}}  # fmt: skip
BROKEN = (b"{", b"[" * 100_000, b'{"messages": 1}', b"\xff", b" " * (300 << 10), b"")

Sent = tuple[str, dict[str, Any]]  # a path and a body


def requests() -> list[Sent]:
    """What is asked of the server again and again; the answer of each is always the same."""
    found: list[Sent] = []
    for i in range(6):
        chat = {"messages": [{"role": "user", "content": f"Tell me of {i} " + "seas " * 5 * i}]}
        found += [
            (CHAT, {**chat, "max_tokens": 8 + 8 * i, "temperature": 0, "ignore_eos": True}),
            (CHAT, {**chat, "max_tokens": 24, "seed": i, "n": 2, "temperature": 0.8}),
            (CHAT, {**chat, "max_tokens": 60, "seed": i, "response_format": {
                "type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}}),
            (CHAT, {**chat, "max_tokens": 90, "seed": i, "tools": [WEATHER],
                    "tool_choice": "required", "parallel_tool_calls": False}),
            (COMPLETIONS, {"prompt": [f"a{i}", f"b{i}"], "max_tokens": 20, "seed": i,
                           "presence_penalty": 0.5}),
        ]  # fmt: skip
    return found


class Crowd:
    def __init__(self, server: Apart, seed: int = 0) -> None:
        self.server = server
        self.done: Counter[str] = Counter()  # what clients did
        self.wrong: list[str] = []
        self._random = random.Random(seed)
        self._expected = [(sent, self._alone(*sent)) for sent in requests()]

    def run(self, clients: int, seconds: float) -> None:
        """Let so many clients do what they do for so long, and leave."""
        asyncio.run(self._all(clients, seconds))
        self.server.until_idle()

    def _alone(self, path: str, body: object) -> list[tuple[str, str, str | None]]:
        """What is said to a request when there is no other."""
        while True:
            failures = self.server.failures
            answer = self.server.post(path, body)
            if self.server.failures == failures:
                return said(answer.json, whole=True)

    async def _all(self, clients: int, seconds: float) -> None:
        end = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._client(end))

    async def _client(self, end: float) -> None:
        kinds = (self._reads, self._reads, self._reads_slowly, self._leaves, self._stalls,
                 self._sends_what_is_none)  # fmt: skip
        while time.monotonic() < end:
            kind = self._random.choice(kinds)
            reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
            try:
                async with asyncio.timeout(PATIENCE + seconds_of(end)):
                    await kind(reader, writer)
                self.done[kind.__name__.strip("_")] += 1
            except (ConnectionResetError, BrokenPipeError):
                self.done["reset"] += 1
            except TimeoutError:
                self.wrong.append(f"{kind.__name__}: nothing came")
            finally:
                writer.transport.abort()

    async def _reads(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pause: float = 0
    ) -> None:
        (path, body), expected = self._random.choice(self._expected)
        stream = self._random.random() < 0.8
        failures = self.server.failures
        writer.write(request(path, json.dumps({**body, "stream": stream}).encode()))
        data = b""
        while piece := await reader.read(300 if pause else 1 << 16):
            data += piece
            await asyncio.sleep(pause)
        status, answer = parsed(data)
        text = answer.decode()
        if self.server.failures > failures and (status == 500 or '"error"' in text):
            self.done["injected"] += 1
        elif status != 200:
            self.wrong.append(f"{body}: {status} {text[:300]}")
        elif not stream:
            self._compare(body, said(json.loads(text), whole=True), expected)
        elif "data: [DONE]" not in text:
            self.wrong.append(f"{body}: {text[-300:]}")
        else:
            self._compare(body, streamed(text), expected)

    def _compare(self, body: object, found: object, expected: object) -> None:
        self.done["compared"] += 1
        if found != expected:
            self.wrong.append(f"{body}: {found} is not {expected}")

    async def _reads_slowly(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await self._reads(reader, writer, 0.005)

    async def _leaves(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A third before anything came, which is in prefill or before."""
        prompt = [self._random.randrange(256) for _ in range(self._random.randrange(1, 600))]
        body = {"prompt": prompt, "max_tokens": 200, "ignore_eos": True, "stream": True}
        writer.write(request(COMPLETIONS, json.dumps(body).encode()))
        await writer.drain()
        for _ in range(self._random.randrange(3)):
            await reader.read(1000)
        await asyncio.sleep(self._random.random() * 0.05)

    async def _stalls(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        body = {"prompt": "x", "max_tokens": 50, "n": 4, "logprobs": 20, "stream": True}
        writer.write(request(COMPLETIONS, json.dumps(body).encode()))
        await asyncio.sleep(self._random.random())

    async def _sends_what_is_none(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        kind = self._random.randrange(len(BROKEN) + 1)
        if kind == len(BROKEN):
            writer.write(self._random.randbytes(200) + b"\r\n\r\n")
        else:
            writer.write(request(CHAT, BROKEN[kind]))
        status, answer = parsed(await reader.read())
        self.done[str(status)] += 1
        if not 400 <= status < 500:
            self.wrong.append(f"{status} for what is none: {answer[:300]!r}")


def seconds_of(end: float) -> float:
    return max(0.0, end - time.monotonic())


def request(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    kind = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return (head + kind).encode() + body


def parsed(data: bytes) -> tuple[int, bytes]:
    """The status of a response and its body, whole or in chunks."""
    head, _, rest = data.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head:
        return int(head[9:12] or 0), rest
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    return int(head[9:12]), body


def said(answer: Mapping[str, Any], *, whole: bool) -> list[tuple[str, str, str | None]]:
    """Text, calls and end of each choice."""
    found = []
    for choice in sorted(answer["choices"], key=lambda each: int(each["index"])):
        message = choice.get("message") or {"content": choice.get("text")}
        calls = [each["function"] for each in message.get("tool_calls") or ()]
        told = "".join(f"{call['name']}({call['arguments']})" for call in calls)
        found.append((message.get("content") or "", told, choice["finish_reason"]))
    return found


def streamed(text: str) -> list[tuple[str, str, str | None]]:
    """The same of the events of a stream."""
    texts: dict[int, str] = {}
    calls: dict[int, dict[int, list[str]]] = {}
    ends: dict[int, str | None] = {}
    for line in text.split("\n"):
        if not line.startswith("data: {"):
            continue
        for choice in json.loads(line[6:])["choices"]:
            index = choice["index"]
            delta = choice.get("delta", choice)
            texts[index] = texts.get(index, "") + (delta.get("content") or delta.get("text") or "")
            ends[index] = ends.get(index) or choice["finish_reason"]
            for call in delta.get("tool_calls") or ():
                own = calls.setdefault(index, {}).setdefault(call["index"], ["", ""])
                own[0] += call["function"].get("name", "")
                own[1] += call["function"]["arguments"]
    return [
        (texts[i], "".join(f"{n}({a})" for n, a in calls.get(i, {}).values()), ends[i])
        for i in sorted(texts)
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=180)
    given = parser.parse_args()
    with Apart(given.model) as server:
        crowd = Crowd(server)
        crowd.run(given.clients, given.seconds / 4)  # so that all that is kept is there
        print(f"before: {server.at_rest()}")
        crowd.run(given.clients, given.seconds)
        print(f"with the cache: {server.held()}", f"after: {server.at_rest()}", sep="\n")
        print(f"done: {dict(crowd.done)}")
        print(f"wrong: {len(crowd.wrong)}", *crowd.wrong[:20], sep="\n")


if __name__ == "__main__":
    main()
