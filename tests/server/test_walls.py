"""What one tenant has, another cannot see, use or end: every route that takes an id, and every
field that does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from octavo.server.app import ROUTES
from octavo.server.auth import Keys
from tests.server.live import Live

ANN, BOB = "ann-0123456789abcdef", "bob-0123456789abcdef"
SECRET = "what ann said to nobody else"
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
BODIES = {"/v1/sessions/{id}/rewind": {"tokens": 1}}
WITH_ID = [(method, path) for method, path, _ in ROUTES if "{id}" in path]  # no model's name


class Anns(NamedTuple):
    session: str
    response: str
    request: str


@pytest.fixture(scope="module")
def locked(roomy_path: Path) -> Iterator[Live]:
    with Live(roomy_path, keys=Keys([f"{ANN} tenant=ann", f"{BOB} tenant=bob"])) as server:
        yield server


@pytest.fixture
def anns(locked: Live) -> Anns:
    session = locked.post("/v1/sessions", {"prompt": SECRET, "pin": True}, x_api_key=ANN)
    asked = {"input": SECRET, "max_output_tokens": 1}
    response = locked.post("/v1/responses", asked, x_api_key=ANN)
    return Anns(session.json["id"], response.json["id"], response.headers["x-request-id"])


@pytest.mark.parametrize(("method", "path"), WITH_ID)
def test_an_id_of_anothers_is_none(locked: Live, anns: Anns, method: str, path: str) -> None:
    kinds = {"sessions": anns.session, "responses": anns.response, "cache": anns.request}
    asked = path.replace("{id}", kinds[path.split("/")[2]])
    body = json.dumps(BODIES.get(path, {})).encode() if method == "POST" else None
    refused = locked.ask(method, asked, body, x_api_key=BOB)
    assert refused.status == 404
    assert SECRET not in refused.body.decode()
    found = locked.ask(method, asked, body, x_api_key=ANN)
    assert found.status == (400 if path.endswith("cancel") else 200), found  # it has ended


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [(CHAT, {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}, "session"),
     (COMPLETIONS, {"prompt": "x", "max_tokens": 1}, "session"),
     ("/v1/responses", {"input": "x", "max_output_tokens": 1}, "session"),
     ("/v1/responses", {"input": "x", "max_output_tokens": 1}, "previous_response_id")],
)  # fmt: skip
def test_nobody_goes_on_from_anothers(
    locked: Live, anns: Anns, path: str, body: dict[str, object], field: str
) -> None:
    id = anns.session if field == "session" else anns.response
    assert locked.post(path, {**body, field: id}, x_api_key=BOB).status == 404


def test_the_cache_shows_the_callers_own_alone(locked: Live, anns: Anns) -> None:
    for key, is_anns in ((ANN, True), (BOB, False)):
        found = locked.get("/v1/cache", x_api_key=key)
        assert bool(found.json["pins"]) is is_anns
        for salt in ("ann", "3:ann", "3:ann3:bob", "%00"):
            narrowed = locked.get(f"/v1/cache?cache_salt={salt}", x_api_key=key).json
            assert (narrowed["pins"], narrowed["prefixes"]) == ([], [])
        metrics = locked.get("/metrics", x_api_key=key).body.decode()
        assert not any(each in metrics for each in (SECRET, *anns, "ann", "bob"))


def test_a_request_id_that_is_anothers_too_changes_nothing_of_it(locked: Live, anns: Anns) -> None:
    record = f"/v1/cache/requests/{anns.request}"
    before = locked.get(record, x_api_key=ANN).body
    asked = {"prompt": "y", "max_tokens": 1}
    locked.post(COMPLETIONS, asked, x_api_key=BOB, x_request_id=anns.request)
    assert locked.get(record, x_api_key=ANN).body == before
    assert locked.get(record, x_api_key=BOB).body != before
