"""Clients that mean harm, or are broken: what they send is refused, what they hold is taken away,
and nobody else waits for it.
"""

from __future__ import annotations

import json
import select
import socket
from pathlib import Path
from typing import Any

import pytest

from octavo.server import http_protocol, transport
from octavo.server.auth import Keys
from tests.gate import PATIENCE
from tests.server.live import Live, until
from tests.server.wire import CLOSE, HEAD, heads, held_connections

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HI: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}

# Each takes the place of a value in a body that is else right.
VALUES = [
    b"1" * 10_000, b"-" + b"9" * 10_000, b"0." + b"1" * 10_000, b"1e" + b"9" * 10_000, b"1E400",
    b"-1e-400", b"18446744073709551616", b"-0", b"[" * 200_000, b"[" * 500 + b"]" * 500,
    b'{"a":' * 200_000, b'"\\ud800"', b'"\\udc00\\ud800"', b'"a\\u0000b"', b'"\\uffff"', b'"\xff"',
    b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"a\x00b"', b"NaN", b"Infinity", b"tru", b"null",
    b"true", b'""', b"{}", b"[]", b"[[]]", b"[null]", b"[{}]", b"\xef\xbb\xbf1", b"01", b"+1",
    b'{"":{"":{"":[]}}}', b'{"a":1,"a":2}', b"2147483648", b"9223372036854775808", b"1e5", b"0.5",
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, ("messages", "max_tokens", "temperature", "seed", "stop", "tools", "logit_bias",
                "response_format", "stream", "n", "chat_template_kwargs", "stream_options",
                "messages[]", "content", "guided_json", "metadata", "user", "cache_salt")),
        (COMPLETIONS, ("prompt", "max_tokens", "echo", "logprobs", "best_of", "structured_outputs",
                       "guided_regex", "guided_choice", "deadline_ms", "priority")),
        ("/v1/messages", ("messages", "system", "max_tokens", "tools", "thinking", "tool_choice",
                          "stop_sequences", "output_config", "cache_control")),
        ("/v1/embeddings", ("input", "dimensions")),
        ("/tokenize", ("prompt", "messages")),
        ("/detokenize", ("tokens",)),
    ],
)  # fmt: skip
def test_no_value_breaks_a_route(live: Live, path: str, fields: tuple[str, ...]) -> None:
    for field in fields:
        for value in VALUES:
            found = live.ask("POST", path, with_value(path, field, value))
            assert found.status in (200, 400, 413), (field, value[:60], found.body[:300])
    assert live.post(CHAT, HI).status == 200


def with_value(path: str, field: str, value: bytes) -> bytes:
    """A body of a route in which one field has these bytes."""
    mark = "@"
    body: dict[str, Any] = {"max_tokens": 2}
    if path in (CHAT, "/v1/messages"):
        body["messages"] = [{"role": "user", "content": "hi"}]
    elif path == COMPLETIONS:
        body["prompt"] = "hi"
    else:
        body = {}
    if field == "messages[]":
        body["messages"] = [mark]
    elif field == "content":
        body["messages"][0]["content"] = mark
    else:
        body[field] = mark
    return json.dumps(body).encode().replace(b'"@"', value)


def test_bodies_are_counted_as_they_come(tiny_path: Path) -> None:
    head = HEAD % CHAT.encode() + b"content-length: 1000000\r\n\r\n"
    with Live(tiny_path, max_body=1 << 20) as live:
        connections = [socket.create_connection(("127.0.0.1", live.port)) for _ in range(17)]
        for each in connections:
            each.sendall(head + b" " * 999_000)
        refused, _, _ = select.select(connections, [], [], PATIENCE)
        assert b"429 Too Many Requests" in refused[0].recv(1000)
        for each in connections:
            each.close()
        until(lambda: live.service.body_bytes == 0)


def test_a_body_that_still_comes_at_the_end_is_told(tiny_path: Path) -> None:
    with socket.socket() as connection:
        connection.settimeout(PATIENCE)
        with Live(tiny_path) as live:
            connection.connect(("127.0.0.1", live.port))
            connection.sendall(HEAD % CHAT.encode() + b"content-length: 100\r\n\r\n{")
            until(lambda: live.service.body_bytes == 1)
        found = connection.recv(1 << 16)
    assert heads(found) == [503]
    assert b'"message":"the server is shutting down"' in found
    assert live.service.body_bytes == 0


def test_one_tenants_bodies_leave_room_for_anothers(tiny_path: Path) -> None:
    ann, bob = "ann-0123456789abcdef", "bob-0123456789abcdef"
    head = HEAD % CHAT.encode() + b"x-api-key: %s\r\ncontent-length: 1000000\r\n\r\n"
    with Live(tiny_path, max_body=1 << 20, keys=Keys([ann, bob])) as live:
        connections = [socket.create_connection(("127.0.0.1", live.port)) for _ in range(16)]
        for each in connections:
            each.sendall(head % ann.encode() + b" " * 999_000)
        refused, _, _ = select.select(connections, [], [], PATIENCE)
        assert b"429 Too Many Requests" in refused[0].recv(1000)
        assert live.post(CHAT, HI, x_api_key=bob).status == 200
        for each in connections:
            each.close()
        until(lambda: live.service.body_bytes == 0)
        assert not any(live.service.bytes_by_tenant.values())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "READER_SECONDS", 0.3)
    monkeypatch.setattr(transport, "LINGER", 0.1)


@pytest.mark.parametrize("stream", [True, False])
def test_a_reader_that_stalls_is_closed(roomy: Live, impatient: None, stream: bool) -> None:
    body = json.dumps(
        {"prompt": "x", "ignore_eos": True, "max_tokens": 3000 if stream else 400, "n": 16,
         "logprobs": 20, "stream": stream}
    ).encode()  # fmt: skip
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(PATIENCE)
        connection.connect(("127.0.0.1", roomy.port))
        head = HEAD % COMPLETIONS.encode() + b"content-length: %d\r\n" % len(body)
        connection.sendall(head + CLOSE + body)
        until(lambda: held_connections(roomy) == 1)
        until(lambda: held_connections(roomy) == 0)
    until(lambda: roomy.service.loaded.admission.num_open == 0)


def test_two_tenants_never_meet(tiny_path: Path) -> None:
    ann, bob = "ann-0123456789abcdef", "bob-0123456789abcdef"
    body = {"prompt": "a prompt of more than two blocks, twice", "max_tokens": 2, "cache_salt": "s"}
    with Live(tiny_path, keys=Keys([f"{ann} tenant=ann", f"{bob} tenant=bob"])) as live:
        found = [live.post(COMPLETIONS, body, x_api_key=key) for key in (ann, bob, ann)]
        assert [each.json["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
                for each in found] == [False, False, True]  # fmt: skip
        first, second, third = (each.headers["x-request-id"] for each in found)
        cached = found[2].json["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert live.engine.totals.matched_tokens == cached
        for key, other in ((ann, second), (bob, first), (bob, third)):
            record = f"/v1/cache/requests/{other}"
            assert live.get(record, x_api_key=key).status == 404
        for key, own, hits in ((ann, first, False), (bob, second, False), (ann, third, True)):
            record = live.get(f"/v1/cache/requests/{own}", x_api_key=key).json
            assert (record["prompts"][0]["cache"]["matched_tokens"] > 0) is hits
