"""What sessions refuse, how many there may be, and how they end."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from octavo.server import sessions
from octavo.server.auth import ANYBODY, Keys
from octavo.server.sessions import Session
from tests.cli.tiny_model import TEMPLATE, write_tiny_model
from tests.server.live import Live, until
from tests.server.turns import (
    AND,
    CHAT,
    HI,
    SESSIONS,
    begin,
    say,
)

ANN, BOB = "ann-has-a-long-key", "bob-has-a-long-key"
CALLABLE: Any = [{"type": "function", "function": {"name": "f"}}]


def test_tools_cannot_come_in_the_middle(roomy: Live) -> None:
    session = begin(roomy)
    refused = say(roomy, session, HI, tools=CALLABLE)
    assert (refused.status, "other tools" in refused.error) == (400, True)
    session = begin(roomy, tools=CALLABLE)
    assert say(roomy, session, HI).status == 200
    assert say(roomy, session, AND, tools=CALLABLE).status == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [HI], "prompt": "x"}, "messages"),
        ({}, "messages"),
        ({"messages": [HI], "ttl_s": 0}, "ttl_s"),
        ({"messages": [HI], "temperature": 1}, "temperature"),
        ({"prompt": ["a", "b"]}, "prompt"),
    ],
)
def test_what_a_session_cannot_begin_with(roomy: Live, body: Any, param: str) -> None:
    refused = roomy.post(SESSIONS, body)
    assert (refused.status, refused.json["error"]["param"]) == (400, param)


def test_what_a_turn_cannot_ask(roomy: Live) -> None:
    session = begin(roomy)
    for more, param in (({"n": 2}, "n"), ({"cache_salt": "x"}, "cache_salt")):
        refused = say(roomy, session, HI, **more)
        assert (refused.status, refused.json["error"]["param"]) == (400, param)
    assert say(roomy, {"id": "sess_none"}, HI).status == 404


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    content = "{{ m['content'] }}"
    template = TEMPLATE.replace(
        content, "{% if loop.last or m['role'] != 'assistant' %}" + content + "{% endif %}"
    )
    path = tmp_path_factory.mktemp("forgetful") / "tiny.gguf"
    with Live(write_tiny_model(path, template=template)) as server:
        yield server


def test_a_template_that_rewrites_earlier_turns_is_refused(forgetful: Live) -> None:
    refused = forgetful.post(SESSIONS, {"messages": [HI]})
    assert (refused.status, "rewrites earlier turns" in refused.error) == (400, True)


def test_sessions_are_bounded_and_of_one_tenant(
    tiny_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MOST", 2)
    with Live(tiny_path, keys=Keys([ANN, BOB])) as server:
        ids = [
            server.post(SESSIONS, {"messages": [HI], "pin": True}, x_api_key=ANN).json["id"]
            for _ in range(2)
        ]
        refused = server.post(SESSIONS, {"messages": [HI]}, x_api_key=ANN)
        assert (refused.status, refused.json["error"]["code"]) == (429, "too_many_sessions")
        path = f"{SESSIONS}/{ids[0]}"
        assert server.post(f"{path}/fork", {}, x_api_key=ANN).status == 429
        assert server.post(SESSIONS, {"messages": [HI]}, x_api_key=BOB).status == 200
        assert server.get(path, x_api_key=BOB).status == 404
        assert server.post(f"{path}/fork", {}, x_api_key=BOB).status == 404
        assert server.post(f"{path}/rewind", {"tokens": 1}, x_api_key=BOB).status == 404
        assert server.ask("DELETE", path, None, x_api_key=BOB).status == 404
        body = {"messages": [HI], "session": ids[0], "max_tokens": 1}
        assert server.post(CHAT, body, x_api_key=BOB).status == 404
        assert server.post(CHAT, body, x_api_key=ANN).status == 200


def test_the_bytes_of_a_tenants_sessions_are_bounded(
    tiny_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template may leave out what is said: a context does not bound it."""
    with Live(tiny_path) as server:
        long = {"chat_template_kwargs": {"nobody_reads_this": "x" * 1000}}
        monkeypatch.setattr(sessions, "MOST_BYTES", 5000)
        session = begin(server, messages=[HI], **long)
        said = say(server, session, AND, **long)
        assert said.status == 200
        path = f"{SESSIONS}/{session['id']}"
        refused = server.post(f"{path}/fork", {"n": 2})
        assert (refused.status, refused.json["error"]["code"]) == (429, "too_many_sessions")
        assert server.post(f"{path}/fork", {}).status == 200
        assert say(server, session, AND, **long).status == 429
        assert server.post(SESSIONS, {"messages": [HI], **long}).status == 429
        assert server.post(f"{path}/rewind", {"messages": 1}).status == 200
        assert say(server, session, AND, **long).status == 200


def test_a_session_that_was_deleted_leaves_nothing(roomy: Live) -> None:
    """Its timer would hold it until it had expired."""
    held = roomy.service.loaded.sessions
    session = begin(roomy, ttl_s=1000)
    ids = held.find(ANYBODY.name, session["id"]).ids
    assert roomy.ask("DELETE", f"{SESSIONS}/{session['id']}", None).status == 200
    until(lambda: not [each for each in gc.get_referrers(ids) if isinstance(each, Session)])


def test_one_that_nobody_uses_is_forgotten(tiny_path: Path) -> None:
    with Live(tiny_path) as server:
        session = begin(server, messages=[HI], ttl_s=1, pin=True)
        until(lambda: server.get(f"{SESSIONS}/{session['id']}").status == 404)
        until(lambda: not server.get("/v1/cache").json["pins"])
