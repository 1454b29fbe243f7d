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
from tests.server.live import Live, slowed, talk, until

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HI: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
HEAD = b"POST %s HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n"
CLOSE = b"connection: close\r\n\r\n"

# Each takes the place of a value in a body that is else right.
VALUES = [
    b"1" * 10_000, b"-" + b"9" * 10_000, b"0." + b"1" * 10_000, b"1e" + b"9" * 10_000, b"1E400",
    b"-1e-400", b"18446744073709551616", b"-0", b"[" * 200_000, b"[" * 500 + b"]" * 500,
    b'{"a":' * 200_000, b'"\\ud800"', b'"\\udc00\\ud800"', b'"a\\u0000b"', b'"\\uffff"', b'"\xff"',
    b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"a\x00b"', b"NaN", b"Infinity", b"tru", b"null",
    b"true", b'""', b"{}", b"[]", b"[[]]", b"[null]", b"[{}]", b"\xef\xbb\xbf1", b"01", b"+1",
    b'{"":{"":{"":[]}}}', b'{"a":1,"a":2}', b"2147483648", b"9223372036854775808", b"1e5", b"0.5",
]  # fmt: skip


def held_connections(live: Live) -> int:
    return live.service.tally.connections


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


def test_trailers_and_chunks_without_end_are_closed(live: Live) -> None:
    begin = HEAD % CHAT.encode() + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"
    for endless in (b"0\r\n" + b"x-y: 1\r\n" * 400, b"0\r\nx: ", b"1;"):
        talk(live, begin + endless, *[b"x-y: 1\r\n" * 1000] * 20)
        until(lambda: held_connections(live) == 0)


def test_fields_after_a_body_are_not_read(live: Live) -> None:
    body = json.dumps(HI).encode()
    chunk = b"%x\r\n%s\r\n0\r\nhost: evil\r\nx-a: 1\r\n\r\n" % (len(body), body)
    head = HEAD % CHAT.encode() + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    assert b"200 OK" in talk(live, head + chunk)


def test_blank_lines_do_not_hold_a_connection(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "_HEAD_SECONDS", 0.1)
    with socket.create_connection(("127.0.0.1", live.port), PATIENCE) as connection:
        connection.sendall(HEALTH + b"\r\n")
        assert b"200 OK" in connection.recv(1000)
        until(lambda: not takes(connection, b"\r\n"))


def takes(connection: socket.socket, data: bytes) -> bool:
    try:
        connection.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def test_a_refused_body_is_not_read_for_ever(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "_HEAD_SECONDS", 0.1)
    foreign = (HEAD % CHAT.encode()).replace(b"localhost", b"evil.example")
    found = talk(live, foreign + b"content-length: 1000\r\n\r\n")
    assert b"403 Forbidden" in found
    assert b"408" not in found


def test_who_sends_too_much_is_told(live: Live) -> None:
    """The rest of it is read: else the answer would be lost with the connection."""
    size = live.service.config.max_body + 1
    for length in (b"content-length: %d\r\n" % size, b"transfer-encoding: chunked\r\n"):
        chunk = b"" if b"content" in length else b"%x\r\n" % size
        with socket.create_connection(("127.0.0.1", live.port), PATIENCE) as connection:
            connection.sendall(HEAD % CHAT.encode() + length + b"\r\n" + chunk + b" " * size)
            assert b"413 Request Entity Too Large" in connection.recv(1000)


def test_requests_that_wait_in_a_connection_are_few(live: Live) -> None:
    found = talk(live, (HEALTH + b"\r\n") * 4 + HEALTH + CLOSE)
    assert found.count(b"200 OK") == 5
    talk(live, (HEALTH + b"\r\n") * 5000)
    until(lambda: held_connections(live) == 0)


def test_a_client_that_leaves_with_requests_behind_it_ends_the_first(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live.llm.loop.engine, "step", slowed(live, 0.05))
    body = json.dumps({"prompt": "x", "ignore_eos": True, "max_tokens": 110}).encode()
    request = HEAD % COMPLETIONS.encode() + b"content-length: %d\r\n\r\n" % len(body) + body
    with socket.create_connection(("127.0.0.1", live.port), PATIENCE) as connection:
        connection.sendall(request + HEALTH + b"\r\n")
        until(lambda: live.service.loaded.admission.num_open == 1)
    begun = live.engine.totals.generated_tokens
    until(lambda: live.service.loaded.admission.num_open == 0)
    assert live.engine.totals.generated_tokens - begun < 100


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
    monkeypatch.setattr(http_protocol, "_READER_SECONDS", 0.3)
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


def test_half_open_connections_delay_nobody(tiny_path: Path) -> None:
    with Live(tiny_path) as live:
        half = [socket.create_connection(("127.0.0.1", live.port)) for _ in range(500)]
        for each in half:
            each.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: loc")
        until(lambda: held_connections(live) == 500)
        assert live.post(CHAT, HI).status == 200
        for each in half:
            each.close()
        until(lambda: held_connections(live) == 0)


def test_64_mib_of_headers_take_no_memory(live: Live) -> None:
    talk(live, HEALTH, b"x: " + b"a" * (128 << 10))
    before = resident()
    talk(live, HEALTH, *[b"x-y: " + b"a" * 8000 + b"\r\n"] * (64 << 20 >> 13))
    assert resident() - before < 1 << 20


def resident() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = [each for each in status if each.startswith("RssAnon")]
    return int(line.split()[1]) << 10


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


def test_a_body_is_never_read_as_a_request(live: Live) -> None:
    """An `upgrade` is not followed, so that what comes after its head is its body."""
    inner = b'{"tokens": [1]}\r\nGET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n'
    asked = HEAD % b"/detokenize" + b"upgrade: h2c\r\nconnection: upgrade\r\n"
    length = b"content-length: %d\r\n\r\n"
    after = HEALTH + CLOSE
    smuggled = talk(live, asked + length % len(inner), inner + after)
    assert heads(smuggled) == [400, 200]  # its whole body is no JSON
    body = b'{"tokens": [1]}'
    plain = talk(live, HEAD % b"/detokenize" + length % len(body) + body + after)
    for pieces in (
        (asked + length % len(body) + body + after,),
        (asked + length % len(body), body, after),
        (asked + b"transfer-encoding: chunked\r\n\r\nf\r\n" + body + b"\r\n0\r\n\r\n" + after,),
        (*(bytes([each]) for each in asked + length % len(body) + body), after),
    ):
        found = talk(live, *pieces)
        assert heads(found) == heads(plain) == [200, 200]
        assert found.split(b"\r\n\r\n")[1][:14] == plain.split(b"\r\n\r\n")[1][:14]


def test_a_client_that_knows_no_chunks_gets_none(live: Live) -> None:
    body = json.dumps({**HI, "stream": True}).encode()
    head = b"content-length: %d\r\nconnection: keep-alive\r\n\r\n" % len(body)
    asked = (HEAD % CHAT.encode()).replace(b"HTTP/1.1", b"HTTP/1.0") + head + body
    told, _, stream = talk(live, asked).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in told
    assert b"connection: close" in told
    assert stream.startswith(b"data: {")
    assert stream.endswith(b"\n\ndata: [DONE]\n\n")
    whole = talk(live, HEALTH.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n")
    assert whole.endswith(b'\r\n\r\n{"status":"ok"}')
    assert b"content-length: 15\r\n" in whole


def test_a_tunnel_is_refused(live: Live) -> None:
    for target in (b"localhost:80", b"example.com:443"):
        found = talk(live, b"CONNECT " + target + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", HEALTH)
        assert heads(found) == [400]


def heads(raw: bytes) -> list[int]:
    """The statuses of all that was answered."""
    return [int(each[:3]) for each in raw.split(b"HTTP/1.1 ")[1:]]
