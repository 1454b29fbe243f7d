"""/v1/cache: what of the cache a caller sees, and who may clear it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from octavo.server.auth import ANYBODY, Keys
from octavo.server.config import ServerConfig
from octavo.server.exchange import Exchange
from octavo.server.service import Service
from tests.server.live import Live

COMPLETIONS = "/v1/completions"
ANN, BOB = "ann-0123456789abcdef", "bob-0123456789abcdef"
PROMPT = "x" * 20 + "a prompt of three blocks of 16"  # 50 tokens


@pytest.fixture
def locked(tiny_path: Path) -> Iterator[Live]:
    with Live(tiny_path, keys=Keys([f"{ANN} tenant=ann admin", f"{BOB} tenant=bob"])) as server:
        yield server


def ask(live: Live, key: str, **more: object) -> str:
    body = {"prompt": PROMPT, "max_tokens": 1, **more}
    return live.post(COMPLETIONS, body, x_api_key=key).headers["x-octavo-cache"]


def test_the_callers_own_prefixes(locked: Live) -> None:
    for key, salt in ((ANN, ""), (ANN, ""), (ANN, ""), (BOB, ""), (ANN, "s"), (ANN, "s")):
        ask(locked, key, cache_salt=salt)
    own = locked.get("/v1/cache", x_api_key=ANN).json
    assert (own["object"], own["model"], own["pins"]) == ("cache", "tiny", [])
    assert own["prefixes"] == [{"num_tokens": 48, "num_hits": 2, "text": PROMPT[:48]}]
    assert own["counts"]["running"] == own["counts"]["kv_blocks_used"] == own["waste"] == 0
    assert own["counts"]["kv_blocks_kept"] > 0
    assert locked.get("/v1/cache", x_api_key=BOB).json["prefixes"] == []
    salted = locked.get("/v1/cache?cache_salt=s", x_api_key=ANN).json["prefixes"]
    assert [each["num_hits"] for each in salted] == [1]
    assert locked.get("/v1/cache?cache_salt=3:ann", x_api_key=BOB).json["prefixes"] == []


def test_a_long_prefix_is_shown_in_part(live: Live) -> None:
    for _ in range(2):
        live.post(COMPLETIONS, {"prompt": [102] * 100, "max_tokens": 1})
    (prefix,) = live.get("/v1/cache").json["prefixes"]
    assert (prefix["num_tokens"], len(prefix["text"])) == (96, 96)


def test_an_admin_clears_all(locked: Live) -> None:
    for key in (ANN, BOB):
        ask(locked, key)
    refused = locked.ask("POST", "/v1/cache/clear", None, x_api_key=BOB, content_length="0")
    assert (refused.status, "admin" in refused.error) == (403, True)
    assert ask(locked, BOB).startswith("matched=49")
    done = locked.post("/v1/cache/clear", {}, x_api_key=ANN)
    assert done.json == {"object": "cache.cleared", "blocks": done.json["blocks"]}
    assert done.json["blocks"] > 0
    assert locked.get("/v1/cache", x_api_key=ANN).json["counts"]["kv_blocks_kept"] == 0
    assert ask(locked, BOB).startswith("matched=0")


def test_without_keys_this_machine_may(live: Live) -> None:
    live.post(COMPLETIONS, {"prompt": PROMPT, "max_tokens": 1})
    passed_on = live.post("/v1/cache/clear", {}, x_forwarded_for="203.0.113.1")
    assert (passed_on.status, "this machine" in passed_on.error) == (403, False)
    refused = live.post("/v1/cache/clear", {"tenant": "x"})
    assert (refused.status, refused.json["error"]["param"]) == (400, "tenant")
    assert live.ask("POST", "/v1/cache/clear", None, content_length="0").status == 200
    assert live.post("/v1/cache/clear", {"tenant": None}).json["blocks"] == 0


@pytest.mark.parametrize(
    ("client", "uds", "is_local"),
    [(("127.0.0.1", 5), None, True), (("::1", 5), None, True), (("192.0.2.1", 5), None, False),
     (None, "/run/octavo.sock", True), (None, None, False)],
)  # fmt: skip
def test_who_is_on_this_machine(client: object, uds: str | None, is_local: bool) -> None:
    scope = {"method": "POST", "path": "/", "headers": [], "query_string": b"", "client": client}
    service = Service(ServerConfig(uds=uds), Keys())
    found = Exchange(service, scope, _send, id="x", tenant=ANYBODY, body=b"")
    assert found.is_local == is_local


async def _send(_: object) -> None: ...
