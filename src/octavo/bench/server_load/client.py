"""One request of OpenAI's API on its way: sent, streamed, timed. Here alone a load knows HTTP.

A connection is made for each request, as many clients do, and belongs to its time to the first
token. Proxies, redirects and compression would be measured with the server: they are left out.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from urllib.parse import urlsplit

import aiohttp

from octavo.bench.server_load.asks import Ask
from octavo.bench.server_load.config import LoadConfig
from octavo.bench.server_load.stream import (
    AskError,
    Received,
    error_text,
    shown,
    stream_error,
)
from octavo.errors import UsageError

_ROUTES = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
_CONNECT_SECONDS = 30.0
MOST_BYTES = 64 << 20  # of one answer
_KEY_HINT = "--api-key, OCTAVO_API_KEY or OPENAI_API_KEY has the key"
_HINTS = {
    401: _KEY_HINT,
    403: _KEY_HINT,
    404: "URL is what stands before /v1, --endpoint and --model say what is asked",
    429: "--concurrency or --rate asks less of it at once",
}


class Client:
    def __init__(self, session: aiohttp.ClientSession, base: str, config: LoadConfig) -> None:
        """`base` stands before /v1."""
        self._session = session
        self._base = base
        self._config = config

    async def models(self) -> list[str]:
        """The names that the server lists. Raises AskError."""
        try:
            async with self._session.get(
                f"{self._base}/v1/models", allow_redirects=False
            ) as response:
                await _check(response)
                data = await _body(response)
        except (aiohttp.ClientError, OSError) as error:
            raise AskError(_why(error)) from None
        try:
            return [str(each["id"]) for each in json.loads(data)["data"]]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise AskError(
                f"expected a list of models at /v1/models, it sent {shown(data)}; --model names "
                "one that is not listed"
            ) from None

    def body(self, ask: Ask, model: str) -> bytes:
        """The request, ready to be sent."""
        asked: dict[str, object] = {"prompt": ask.prompt}
        if self._config.endpoint == "chat":
            asked = {"messages": [{"role": "user", "content": ask.prompt}]}
        fields = {
            "model": model,
            **asked,
            "max_tokens": ask.max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **({"ignore_eos": True} if self._config.ignore_eos else {}),
        }
        return json.dumps(fields).encode()

    async def ask(self, body: bytes) -> Received:
        """Raises AskError."""
        reads: list[tuple[float, bytes]] = []
        size = 0
        route = self._base + _ROUTES[self._config.endpoint]
        began = perf_counter()
        try:
            async with self._session.post(route, data=body, allow_redirects=False) as response:
                await _check(response)
                async for piece in response.content.iter_any():
                    reads.append((perf_counter(), piece))
                    size += len(piece)
                    if size > MOST_BYTES:
                        raise AskError(f"its answer is of more than {MOST_BYTES >> 20} MiB")
        except (aiohttp.ClientError, OSError) as error:
            raise AskError(stream_error(reads) or _why(error)) from None
        return Received(began, reads)


@asynccontextmanager
async def connect(url: str, key: str | None, config: LoadConfig) -> AsyncIterator[Client]:
    """A client of the server at `url`. Raises UsageError for what is no URL, and no key."""
    base, path = _split(url)
    headers = {"content-type": "application/json", "accept-encoding": "identity"}
    if key is not None:
        if not (key.isascii() and key.isprintable()):
            raise UsageError("the key of the server: expected plain letters alone")
        headers["authorization"] = f"Bearer {key}"
    connector: aiohttp.BaseConnector = (
        aiohttp.TCPConnector(limit=0, force_close=True)
        if path is None
        else aiohttp.UnixConnector(path, limit=0, force_close=True)
    )
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=_CONNECT_SECONDS, sock_read=config.timeout
    )
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        headers=headers,
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        yield Client(session, base, config)


def _split(url: str) -> tuple[str, str | None]:
    """What stands before /v1, and the file of a Unix socket."""
    if url.startswith("unix:") and len(url) > len("unix:"):
        return "http://localhost", url.removeprefix("unix:")
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        (parts.hostname or "").encode("idna")  # as the system is asked for it: raises ValueError
    except ValueError:
        is_url = False
    if not is_url or parts.query or parts.fragment or "@" in parts.netloc:
        raise UsageError(f"URL {url!r}: expected http://HOST:PORT, https://… or unix:FILE")
    return url.rstrip("/").removesuffix("/v1").rstrip("/"), None


async def _check(response: aiohttp.ClientResponse) -> None:
    """Raises AskError for any answer but 200, with what it says."""
    if response.status == 200:
        return
    data = await _body(response)
    try:
        said = error_text(json.loads(data))
    except (ValueError, RecursionError):
        said = shown(data) if data.strip() else str(response.reason)
    if place := response.headers.get("location"):
        said = f"it sends to {place}"
    hint = _HINTS.get(response.status)
    if "ignore_eos" in said:
        hint = "--no-ignore-eos leaves it out"
    raise AskError(f"HTTP {response.status}: {said}" + (f"; {hint}" if hint else ""))


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """The body of an answer that is no stream, or as much of it as anyone reads."""
    found = b""
    async for piece in response.content.iter_any():
        found += piece
        if len(found) > MOST_BYTES:
            break
    return found


def _why(error: Exception) -> str:
    """What went wrong on the way, in words. An error of a kind stands before those it is one of."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"no server answers (no connection in {_CONNECT_SECONDS:g} s)"
    if isinstance(error, TimeoutError):
        return "it was silent for too long; --timeout has the seconds"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is refused ({error.certificate_error})"
    if isinstance(error, aiohttp.ClientConnectorError):
        said = _cause(error.os_error)
        return f"no server answers ({said}): start it first, or mend the URL"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection before it answered"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "its answer broke off"
    if isinstance(error, aiohttp.ClientResponseError):
        return "what it sends is no HTTP"
    return f"the connection failed ({_cause(error)})"


def _cause(error: Exception) -> str:
    """The system's words; asyncio has others in their place."""
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}".lower().replace("_", " ")
    if isinstance(error, socket.gaierror):
        return str(error.strerror).lower()
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower()
    return " ".join(str(error).split()) or type(error).__name__
