"""Who may speak: keys, hosts, origins, kinds of body, on every route there is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from octavo.errors import UsageError
from octavo.server.app import ROUTES
from octavo.server.auth import Keys, Tenant
from octavo.server.config import ServerConfig
from octavo.server.serve import read_keys
from tests.server.live import Answer, Live, talk, until

ANN, BOB = "ann-0123456789abcdef", "bob-0123456789abcdef"
CHAT = "/v1/chat/completions"
CLOSE = b"connection: close\r\n\r\n"
HI = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}


@pytest.fixture(scope="module")
def locked(tiny_path: Path) -> Iterator[Live]:
    keys = Keys([f"{ANN} tenant=ann admin", BOB, "# a comment", ""])
    with Live(tiny_path, keys=keys, allow_origin=["https://chat.example"],
              allowed_host=["Octavo.Example"]) as server:  # fmt: skip
        yield server


@pytest.mark.parametrize(("method", "path"), [(method, path) for method, path, _ in ROUTES])
def test_every_route_needs_a_key_but_the_page_and_those_that_say_whether_it_lives(
    locked: Live, method: str, path: str
) -> None:
    path = path.replace("{id:path}", "x").replace("{id}", "x")
    body = None if method == "GET" else b"{}"
    for headers in ({}, {"authorization": "Bearer wrong"}, {"x_api_key": "wrong"}):
        answer = locked.ask(method, path, body, **headers)
        if path in ("/health", "/ready", "/", "/page.js", "/answer.js", "/page.css"):
            assert answer.status == 200
        else:
            assert answer.status == 401, answer
            assert answer.json["error"]


def test_what_is_another_tenants_is_not_there(locked: Live) -> None:
    def post(path: str, body: object) -> Answer:
        return locked.post(path, body, x_api_key=ANN)

    asked = post("/v1/responses", {"input": "hi", "max_output_tokens": 1})
    ids = {
        "sessions": post("/v1/sessions", {"prompt": "hi"}).json["id"],
        "responses": asked.json["id"],
        "requests": asked.headers["x-request-id"],
    }
    of_ids = [(method, path) for method, path, _ in ROUTES if "{id}" in path]
    assert len(of_ids) == 8
    for method, path in of_ids:
        (id,) = (id for name, id in ids.items() if f"/{name}/{{id}}" in path)
        body = {"tokens": 1} if path.endswith("rewind") else {}
        data = None if method == "GET" else json.dumps(body).encode()
        answer = locked.ask(method, path.replace("{id}", id), data, x_api_key=BOB)
        assert answer.status == 404, (method, path, answer)
    assert locked.get(f"/v1/sessions/{ids['sessions']}", x_api_key=ANN).status == 200
    assert locked.get(f"/v1/responses/{ids['responses']}", x_api_key=ANN).status == 200
    record = f"/v1/cache/requests/{ids['requests']}"  # which comes after the last byte
    until(lambda: locked.get(record, x_api_key=ANN).status == 200)


def test_a_key_opens_in_both_headers(locked: Live) -> None:
    assert locked.post(CHAT, HI, authorization=f"Bearer {ANN}").status == 200
    assert locked.post(CHAT, HI, authorization=f"bearer {BOB}").status == 200
    assert locked.post(CHAT, HI, x_api_key=BOB).status == 200
    assert locked.post(CHAT, HI).error.startswith("an API key is needed")
    assert locked.post(CHAT, HI, x_api_key=BOB[:-1]).error == "the API key is wrong"


def test_behind_a_proxy_that_strips_a_path_the_same_routes_are_open(tiny_path: Path) -> None:
    with Live(tiny_path, keys=Keys([ANN]), root_path="/llm") as server:
        assert [server.get(path).status for path in ("/health", "/", "/page.js")] == [200] * 3
        assert server.get("/v1/models").status == 401
        assert server.get("/v1/models", x_api_key=ANN).status == 200
        assert server.post("/v1/messages", {}).json["type"] == "error"  # in Anthropic's shape


def test_the_description_of_the_routes_says_that_a_key_is_needed(locked: Live) -> None:
    found = locked.get("/openapi.json", x_api_key=ANN).json
    assert found["security"] == [{"bearer": []}, {"x-api-key": []}]
    assert found["paths"]["/health"]["get"]["security"] == []


def test_tenants_share_nothing(locked: Live) -> None:
    def reason(key: str, **more: object) -> str:
        body = {"prompt": "a prompt of more than one block", "max_tokens": 1, **more}
        return locked.post("/v1/completions", body, x_api_key=key).headers["x-octavo-cache"]

    assert reason(ANN).startswith("matched=0")
    assert reason(ANN).startswith("matched=30")
    assert reason(BOB).startswith("matched=0")
    assert reason(BOB, cache_salt="ann").startswith("matched=0, reason=salt")


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"host": "evil.example"}, 403), ({"host": "127.0.0.1.evil.example:80"}, 403),
     ({"host": "localhost"}, 200), ({"host": "[::1]:8000"}, 200), ({"host": "LOCALHOST:1"}, 200),
     ({"host": "localhost:80@evil.example"}, 403), ({"host": "[::1].evil.example"}, 403),
     ({"host": "[::1"}, 403), ({"host": ""}, 403), ({"host": "octavo.example:443"}, 200),
     ({"origin": "https://evil.example"}, 403), ({"origin": "null"}, 403),
     ({"origin": "https://chat.example"}, 200),
     ({"content_type": "text/plain"}, 415), ({"content_type": ""}, 415),
     ({"content_type": "application/x-www-form-urlencoded"}, 415),
     ({"content_type": "application/json; charset=utf-8"}, 200),
     ({"content_encoding": "gzip"}, 415), ({"content_encoding": "identity, br"}, 415),
     ({"content_encoding": "Identity"}, 200),
     ({"expect": "tea"}, 417), ({"expect": "100-continue, tea"}, 417), ({"expect": ""}, 200)],
)  # fmt: skip
def test_other_hosts_origins_and_kinds_are_turned_away(
    locked: Live, headers: dict[str, str], status: int
) -> None:
    answer = locked.post(CHAT, HI, x_api_key=ANN, **headers)
    assert answer.status == status
    if headers.get("origin") == "https://chat.example":
        assert answer.headers["access-control-allow-origin"] == "https://chat.example"
    else:
        assert "access-control-allow-origin" not in answer.headers


def test_who_sends_no_body_need_not_say_what_kind_it_is(locked: Live) -> None:
    head = b"POST /v1/responses/x/cancel HTTP/1.1\r\nhost: localhost\r\nx-api-key: %s\r\n"
    head %= ANN.encode()
    assert talk(locked, head + CLOSE)[9:12] == b"404"  # as `curl -X POST` sends it
    chunked = b"transfer-encoding: chunked\r\n"
    assert talk(locked, head + chunked + CLOSE + b"0\r\n\r\n")[9:12] == b"415"


def test_a_page_may_ask_first_what_it_may(locked: Live) -> None:
    def ask(origin: str) -> Answer:
        wanted = {"access_control_request_headers": "authorization,x-stainless-os"}
        return locked.ask("OPTIONS", CHAT, None, origin=origin, **wanted)

    found = ask("https://chat.example")
    assert (found.status, ask("https://evil.example").status) == (204, 403)
    assert found.headers["access-control-allow-headers"] == "authorization,x-stainless-os"


def test_a_request_has_one_host(locked: Live) -> None:
    two = b"host: localhost\r\nhost: evil.example\r\n"
    assert talk(locked, b"GET /health HTTP/1.1\r\n" + two + CLOSE)[9:12] == b"400"
    assert talk(locked, b"GET /health HTTP/1.0\r\n" + CLOSE)[9:12] == b"403"


def test_a_plain_request_id_is_kept(locked: Live) -> None:
    assert locked.get("/health", x_request_id="abc-1").headers["x-request-id"] == "abc-1"
    assert locked.get("/health", x_request_id="a b").headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("lines", "why"),
    [(["short"], "keys, line 1: a key of 5 characters: at least 16"),
     (["", f"{ANN} tenant="], "keys, line 2: 'tenant=' after the key: expected tenant=NAME or"),
     ([f"{ANN} root"], "keys, line 1: 'root' after the key: expected tenant=NAME or admin"),
     ([ANN, ANN], "keys, line 2: this key stands there twice")],
)  # fmt: skip
def test_a_bad_key_file_is_refused_by_line(lines: list[str], why: str) -> None:
    with pytest.raises(UsageError) as caught:
        Keys(lines, where="keys")
    assert str(caught.value).startswith(why)


def test_salts_of_two_tenants_never_meet() -> None:
    pairs = [("a", "b"), ("ab", ""), ("a", "1:b"), ("1:a", "b"), ("11:a", "")]
    assert len({Tenant(name).salt(own) for name, own in pairs}) == len(pairs)


def test_beyond_this_machine_keys_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OCTAVO_API_KEYS", raising=False)
    with pytest.raises(UsageError, match=r"0\.0\.0\.0 is reached from other machines"):
        read_keys(ServerConfig(host="0.0.0.0"))
    assert not read_keys(ServerConfig(host="0.0.0.0", no_auth=True)).are_required
    assert not read_keys(ServerConfig(host="::1")).are_required
    monkeypatch.setenv("OCTAVO_API_KEYS", f"{ANN} tenant=a, {BOB} tenant=b")
    assert read_keys(ServerConfig(host="0.0.0.0")).num_tenants == 2
    assert read_keys(ServerConfig(share_prefix=True)).num_tenants == 1


def test_of_several_tenants_none_goes_before_the_others(locked: Live, tiny_path: Path) -> None:
    bodies: dict[str, dict[str, object]] = {
        CHAT: HI,
        "/v1/completions": {"prompt": "hi", "max_tokens": 1},
        "/v1/responses": {"input": "hi", "max_output_tokens": 1},
        "/v1/embeddings": {"input": "hi"},
    }
    for path, body in bodies.items():
        refused = locked.post(path, {**body, "priority": -1}, x_api_key=BOB)
        assert refused.status == 403
        assert refused.error.startswith("priority=-1: this server has several tenants")
        assert refused.json["error"]["param"] == "priority"
        assert locked.post(path, {**body, "priority": 7}, x_api_key=BOB).status == 200
        assert locked.post(path, {**body, "priority": -1}, x_api_key=ANN).status == 200
    with Live(tiny_path, keys=Keys([f"{ANN} tenant=one", f"{BOB} tenant=one"])) as shared:
        assert shared.post(CHAT, {**HI, "priority": -1}, x_api_key=BOB).status == 200


def test_of_several_tenants_one_pins_half(locked: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    def pinned(key: str, first: int) -> int:
        body = {"prompt": [first] * 64, "pin": True}
        tokens: int = locked.post("/v1/sessions", body, x_api_key=key).json["pinned_tokens"]
        return tokens

    monkeypatch.setattr(locked.engine.pins, "most", 8 * locked.llm.info.block_bytes)
    assert [pinned(BOB, first) for first in (1, 2, 1)] == [64, 0, 64]
    marked = {"type": "text", "text": "z" * 40, "cache_control": {"type": "ephemeral"}}
    asked = {"messages": [{"role": "user", "content": [marked]}], "max_tokens": 1}
    told = locked.post("/v1/messages", asked, x_api_key=BOB).headers["x-octavo-pinned"]
    assert "more would be pinned than one of several callers may" in told
    assert pinned(ANN, 2) == 64
