"""`serve`: the server from its first listening socket to its exit code.

It listens before the model is loaded, so that a port in use is told at once and a health check has
an answer. A first SIGTERM or SIGINT drains: no new requests, and the open ones have their time; a
second ends at once, with exit code 1 if it breaks off requests, else 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import uvicorn

from octavo.environment import api_keys, traces_wanted
from octavo.errors import UsageError, counted
from octavo.server.app import make_app
from octavo.server.auth import Keys
from octavo.server.config import ServerConfig
from octavo.server.descriptors import Shortage, make_room
from octavo.server.handshake import behind_tls
from octavo.server.http_protocol import limited_to
from octavo.server.listening import listening
from octavo.server.outcome import Outcome
from octavo.server.service import Service
from octavo.server.tally import Tally
from octavo.serving.async_engine import AsyncEngine

_TEXT_THREADS = 2  # which encode prompts and render templates
_KEEP_ALIVE = 30  # seconds
_LAST_WORDS = 2.0  # seconds in which open requests are told that they end
_LAST_BYTES = 3  # seconds that readers have to take it

_FOREIGN = (
    "the chat template's form of tool calls is not read here: the system message tells of tools, "
    "and calls are asked for in Hermes' form; --tool-format names another"
)

Loaded = tuple[AsyncEngine, str]  # and its name

logger = logging.getLogger(__name__)


def read_keys(config: ServerConfig) -> Keys:
    """Raises UsageError for a bad key, and where a key is needed and there is none."""
    path, listed = config.api_key_file, api_keys()
    if path is not None and listed:
        raise UsageError("keys are in --api-key-file and in OCTAVO_API_KEYS: use one of them")
    lines = listed if path is None else _read_lines(path)
    keys = Keys(lines, where=path or "OCTAVO_API_KEYS", one_tenant=config.share_prefix)
    if path is not None and not keys.are_required:
        raise UsageError(f"{path} has no key: give a line `key [tenant=NAME] [admin]` each")
    if not (keys.are_required or config.is_local or config.no_auth):
        raise UsageError(
            f"{config.host} is reached from other machines, and there is no key: give "
            "--api-key-file, or --no-auth to serve all who reach it"
        )
    return keys


class Said(Protocol):
    """Who is told how the server fares."""

    def ready(self, address: str, name: str) -> None: ...
    def note(self, line: str) -> None: ...
    def close(self) -> None: ...  # the process ends


def serve(
    config: ServerConfig,
    load: Callable[[], Loaded],
    said: Said,
    chat_template: str | None = None,
) -> None:
    """Serve until a signal comes. `load` gives the model and its name. Raises what it raises, and
    UsageError where nothing can listen."""
    keys = read_keys(config)
    make_room(config.max_connections)
    with listening(config) as listener, _tracing(said) as trace:
        asyncio.run(_Process(config, keys, listener, said, trace).run(load, chat_template))


class _Process:
    """The event loop's part of it."""

    def __init__(
        self,
        config: ServerConfig,
        keys: Keys,
        listener: socket.socket,
        said: Said,
        trace: Callable[[Outcome, str], None] | None,
    ) -> None:
        self._config = config
        self._listener = listener
        self._said = said
        self._service = Service(config, keys, trace=trace)
        self._server = make_server(self._service)
        self._signalled = asyncio.Event()

    async def run(self, load: Callable[[], Loaded], chat_template: str | None) -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(_TEXT_THREADS, "octavo-text"))
        loop.set_exception_handler(Shortage(self._said.note))
        self._hear_signals(loop)
        serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        signalled = asyncio.create_task(self._signalled.wait())
        loading = _loading(load)
        try:
            first: set[asyncio.Future[Any]] = {loading, signalled, serving}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                engine, name = await loading
                async with engine:
                    self._service.open(engine, name, chat_template)
                    if self._service.loaded.conversation.tool_format.is_foreign:
                        self._said.note(_FOREIGN)
                    self._said.ready(self._address(), name)
                    await asyncio.wait({signalled, serving}, return_when=asyncio.FIRST_COMPLETED)
                    await self._drain()
        finally:
            signalled.cancel()
            loading.cancel()
            self._server.should_exit = True
            await serving

    def _hear_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hear signals to the end of the process: a loop's own handlers go with it, and a second
        signal behind them would be how the process ended."""

        def heard(*_: object) -> None:
            try:
                loop.call_soon_threadsafe(self._on_signal)
            except RuntimeError:  # the loop has ended, and every request before it
                os._exit(0)

        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, heard)

    def _on_signal(self) -> None:
        if not self._signalled.is_set():
            self._signalled.set()
            return
        num_open = len(self._server.server_state.tasks)
        cut = f": {counted(num_open, 'open request')} broken off" if num_open else ""
        self._said.note(f"ended at once{cut}")
        self._said.close()
        os._exit(1 if num_open else 0)

    async def _drain(self) -> None:
        """Take nothing new; the open requests have their time, then each is told that it ends."""
        service = self._service
        admission = service.loaded.admission
        service.state = "draining"
        if admission.num_open:
            self._said.note(
                f"waiting up to {self._config.drain:g} s for "
                f"{counted(admission.num_open, 'open request')}; stop again to end at once"
            )
        deadline = asyncio.get_running_loop().time() + self._config.drain
        while admission.num_open and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)
        service.closing.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS):
                while admission.num_open:
                    await asyncio.sleep(0.02)

    def _address(self) -> str:
        if self._config.uds is not None:
            return f"unix:{self._config.uds}"
        host, port = self._listener.getsockname()[:2]
        scheme = "http" if self._config.tls_certificate is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _loading(load: Callable[[], Loaded]) -> asyncio.Future[Loaded]:
    """`load` in a thread that no end of the process waits for, as it does for a pool's."""
    done: Future[Loaded] = Future()
    done.set_running_or_notify_cancel()

    def work() -> None:
        try:
            done.set_result(load())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=work, name="octavo-loading", daemon=True).start()
    return asyncio.wrap_future(done)


class _Server(uvicorn.Server):
    """uvicorn's server, under our signal handlers: its own raise the signal again at the end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_server(service: Service) -> uvicorn.Server:
    """Raises UsageError where the files for TLS are none."""
    config = service.config
    made = uvicorn.Config(
        make_app(service),
        http=_protocol(config, service.tally),
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        root_path=config.root_path,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_LAST_BYTES,
    )
    made.load()
    return _Server(made)


def _protocol(config: ServerConfig, tally: Tally) -> Any:
    """What makes the protocol of a connection. Raises UsageError."""
    most = config.max_connections
    protocol = limited_to(most, tally)
    if config.tls_certificate is None:
        return protocol
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.tls_certificate, config.tls_key)
    except (ssl.SSLError, OSError) as error:
        files = f"{config.tls_certificate} and {config.tls_key}"
        raise UsageError(f"{files} cannot be used for TLS: {error.args[-1]}") from None
    return behind_tls(protocol, context, most, tally)


@contextlib.contextmanager
def _tracing(said: Said) -> Iterator[Callable[[Outcome, str], None] | None]:
    """Who is told of requests, if the environment asks for spans."""
    if not traces_wanted():
        yield None
        return
    try:
        from octavo.server.tracing import open_tracing
    except ImportError:
        said.note("no spans are sent, though OTEL_… asks for them: pip install 'octavo[otel]'")
        yield None
        return
    with contextlib.closing(open_tracing()) as tracing:
        yield tracing.tell


def _read_lines(path: str) -> list[str]:
    try:
        return Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"cannot read {path}: {why}") from None
