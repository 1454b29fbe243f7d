"""A client that leaves before its request is one of the engine's: while its body comes, its prompt
is encoded, its grammar compiled, and while it waits behind another.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from octavo.tokenizer import Tokenizer
from tests.gate import PATIENCE, Gate
from tests.server.live import Live, until
from tests.server.wire import HEAD, held_connections

COMPLETIONS = "/v1/completions"
ASKED = {"prompt": "hi", "max_tokens": 100, "ignore_eos": True}


@contextmanager
def asking(live: Live, body: object, missing: int = 0) -> Iterator[socket.socket]:
    """A client that has sent all of a request but its last bytes, and leaves in the end."""
    data = json.dumps(body).encode()
    length = b"content-length: %d\r\n\r\n" % len(data)
    with socket.create_connection(("127.0.0.1", live.port), PATIENCE) as connection:
        connection.sendall(HEAD % COMPLETIONS.encode() + length + data[: len(data) - missing])
        yield connection


def assert_nothing_left(live: Live) -> None:
    service = live.service
    until(lambda: held_connections(live) == service.loaded.admission.num_open == 0)
    until(lambda: not live.llm.loop.engine.has_unfinished)
    assert service.body_bytes == service.tally.streams == 0


class Held:
    """A function that waits until it is let go, in whatever thread."""

    def __init__(self, function: Any) -> None:
        self.come, self.gone_on = threading.Event(), threading.Event()
        self._function = function

    def __call__(self, *given: Any, **named: Any) -> Any:
        self.come.set()
        assert self.gone_on.wait(PATIENCE)
        return self._function(*given, **named)


def test_while_its_body_comes(live: Live) -> None:
    with asking(live, ASKED, missing=1):
        until(lambda: live.service.body_bytes > 0)
    assert_nothing_left(live)


def test_while_its_prompt_is_encoded(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(Tokenizer.encode)
    monkeypatch.setattr(Tokenizer, "encode", lambda *given, **named: held(*given, **named))
    steps = live.engine.totals.steps
    with asking(live, ASKED):
        assert held.come.wait(PATIENCE)
    assert_nothing_left(live)
    held.gone_on.set()
    monkeypatch.undo()
    assert live.post(COMPLETIONS, {"prompt": "hi", "max_tokens": 0}).status == 200
    assert live.engine.totals.steps == steps + 1  # of that one


def test_while_its_grammar_is_compiled(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    grammars = live.llm.preparer.grammars
    held = Held(grammars.compile)
    monkeypatch.setattr(grammars, "compile", held)
    asked = {"prompt": "hi", "max_tokens": 100, "guided_regex": "[a-f]{90}"}
    steps = live.engine.totals.steps
    with asking(live, asked):
        assert held.come.wait(PATIENCE)
    assert_nothing_left(live)
    assert live.post(COMPLETIONS, {"prompt": "hi", "max_tokens": 0}).status == 200  # beside it
    held.gone_on.set()
    assert live.engine.totals.steps == steps + 1
    assert live.post(COMPLETIONS, asked).status == 200


@pytest.mark.parametrize("stream", [True, False])
def test_while_it_waits_behind_another(
    tiny_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    with Live(tiny_path) as live:
        gate = Gate(live.llm, monkeypatch)
        with asking(live, {**ASKED, "stream": True}):
            gate.wait()
            with asking(live, {**ASKED, "prompt": "another", "stream": stream}):
                until(lambda: live.service.loaded.admission.num_open == 2)
            until(lambda: live.service.loaded.admission.num_open == 1)
        until(lambda: live.service.loaded.admission.num_open == 0)
        gate.open()
        assert_nothing_left(live)
        assert sum(len(batch.tokens) for batch in gate.batches) == 2  # "hi", and nothing else
