"""The OpenAPI document: whole, and true of the server beside it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from octavo.protocol.fields import Field, honoured, noted, of_options, refused
from octavo.request import RequestOptions
from octavo.sampling_params import SamplingParams
from octavo.server.app import ROUTES
from octavo.server.described import DESCRIBED
from octavo.server.openapi import document, field_schema, path_of
from tests.server.documented import accepts
from tests.server.live import Live

CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
# A body without more than what each route must have.
LEAST: dict[str, dict[str, object]] = {
    CHAT: {"messages": HI["messages"]},
    "/v1/completions": {"prompt": "hi"},
    "/v1/messages": HI,
    "/v1/messages/count_tokens": {"messages": HI["messages"]},
    "/v1/responses": {"input": "hi"},
    "/v1/responses/input_tokens": {"input": "hi"},
    "/v1/embeddings": {"input": "hi"},
    "/detokenize": {"tokens": [1]},
    "/apply-template": {"messages": HI["messages"]},
}
WITH_REQUIRED = [path for (_, path), row in DESCRIBED.items() if row.required]


def test_every_route_is_described_and_nothing_else() -> None:
    missing = {(method, path) for method, path, _ in ROUTES} ^ set(DESCRIBED)
    assert not missing, f"server/described.py has no row of these, or one too many: {missing}"


def test_it_is_served(live: Live) -> None:
    answer = live.get("/openapi.json")
    assert answer.status == 200
    tokens = live.llm.tokenizer.vocab_size
    width = live.engine.embedding_size
    assert answer.json == document(needs_key=False, names=("tiny",), num_tokens=tokens, width=width)
    schemas = answer.json["components"]["schemas"]
    assert schemas["TokenId"]["maximum"] == tokens - 1
    assert schemas["EmbeddingSize"]["const"] == width
    assert schemas["ModelName"]["enum"] == ["tiny"]
    assert answer.json["security"] == []


def test_every_reference_leads_somewhere() -> None:
    found = document()
    references = re.findall(r"'\$ref': '#/([^']*)'", repr(found))
    assert references
    for reference in references:
        place: Any = found
        for name in reference.split("/"):
            place = place[name]


@pytest.mark.parametrize("path", WITH_REQUIRED)
def test_a_field_that_is_required_is_missed_and_no_other_is(live: Live, path: str) -> None:
    least = LEAST[path]
    assert live.post(path, least).status == 200
    row = DESCRIBED["POST", path]
    assert set(row.required) == set(least)
    for name in row.required:
        answer = live.post(path, {key: least[key] for key in least if key != name})
        assert (answer.status, name in answer.error) == (400, True)


@pytest.mark.parametrize(
    ("body", "is_valid"),
    [(HI, True), ({**HI, "temperature": 101}, False), ({**HI, "top_p": 0}, True),
     ({**HI, "top_p": -0.1}, False),
     ({**HI, "top_p": None}, True), ({**HI, "top_k": -1, "seed": -1}, True),
     ({**HI, "stream": "yes"}, False), ({**HI, "tool": []}, False),
     ({**HI, "user": "ann"}, True), ({**HI, "functions": []}, True), ({**HI, "audio": {}}, False),
     ({**HI, "functions": [{}]}, False), ({"max_tokens": 1}, False), ([], False),
     ({"messages": None}, False), ({"messages": []}, False), ({"messages": [None]}, False),
     ({"messages": {}}, False)],
)  # fmt: skip
def test_the_schema_and_the_server_agree(live: Live, body: object, is_valid: bool) -> None:
    assert accepts(CHAT, body) is is_valid
    assert live.post(CHAT, body).status == (200 if is_valid else 400)


@pytest.mark.parametrize(
    ("path", "body", "is_valid"),
    [("/tokenize", {"prompt": "x"}, True), ("/tokenize", {}, False),
     ("/tokenize", {"prompt": "x", "messages": None}, True), ("/tokenize", {"messages": []}, False),
     ("/tokenize", {"prompt": "x", "messages": HI["messages"]}, False),
     ("/v1/sessions", {"prompt": "x"}, True), ("/v1/sessions", {}, False),
     ("/v1/sessions", {"prompt": "x", "ttl_s": 0}, False),
     ("/v1/sessions", {"prompt": "x", "ttl_s": 60}, True),
     ("/v1/completions", {"prompt": None}, False), ("/v1/completions", {"prompt": []}, False),
     ("/v1/completions", {"prompt": False}, False), ("/detokenize", {"tokens": []}, True),
     ("/detokenize", {"tokens": [-1]}, False),
     ("/v1/embeddings", {"input": []}, False), ("/v1/messages", {**HI, "max_tokens": None}, False)],
)  # fmt: skip
def test_the_schemas_of_other_routes_and_the_server_agree(
    live: Live, path: str, body: object, is_valid: bool
) -> None:
    assert accepts(path, body) is is_valid
    assert live.post(path, body).status == (200 if is_valid else 400)


@pytest.mark.parametrize(
    ("route", "body", "is_valid"),
    [("fork", {}, True), ("fork", {"n": 16}, True), ("fork", {"n": 17}, False),
     ("fork", {"n": []}, False), ("rewind", {"tokens": 1}, True), ("rewind", {}, False),
     ("rewind", {"tokens": 1, "messages": 1}, False), ("rewind", {"tokens": 0}, False)],
)  # fmt: skip
def test_the_schemas_of_sessions_and_the_server_agree(
    live: Live, route: str, body: object, is_valid: bool
) -> None:
    session = live.post("/v1/sessions", {"prompt": "hello"}).json["id"]
    assert accepts(f"/v1/sessions/{{id}}/{route}", body) is is_valid
    assert live.post(f"/v1/sessions/{session}/{route}", body).status == (200 if is_valid else 400)


@pytest.mark.parametrize(
    ("field", "schema"),
    [(honoured("a", "What", str, dict), {"description": "What.",
                                         "type": ["string", "object", "null"]}),
     (honoured("a", "What"), {"description": "What."}),
     (refused("a", "none"), {"description": "Not supported.", "enum": ["none", None]}),
     (*noted("a"), {"description": "Accepted; it changes no answer."})],
)  # fmt: skip
def test_a_field_as_a_schema(field: Field, schema: dict[str, object]) -> None:
    assert field_schema(field) == schema


def test_options_have_their_ranges() -> None:
    names = ("top_p", "repetition_penalty", "seed")
    top_p, penalty, seed = (field_schema(each) for each in of_options(SamplingParams, names))
    assert (top_p["minimum"], top_p["maximum"]) == (0, 1)
    assert (penalty["exclusiveMinimum"], penalty["maximum"]) == (0, 100)
    assert (seed["minimum"], seed["maximum"]) == (-(2**63), 2**64 - 1)
    (pooling,) = of_options(RequestOptions, ("pooling",))
    assert field_schema(pooling)["enum"] == ["last", "mean", None]


@pytest.mark.parametrize(("method", "path"), [(method, path) for method, path, _ in ROUTES])
def test_a_method_that_is_not_taken_is_told_which_are(live: Live, method: str, path: str) -> None:
    told = path.replace("{id:path}", "x").replace("{id}", "x")
    answer = live.ask("PROPFIND", told, None)
    assert answer.status == 405
    takes = bool(DESCRIBED[method, path].gives)  # else it only refuses
    assert (method in answer.headers["allow"].split(", ")) is takes


def test_a_path_between_others_takes_its_own_methods(live: Live) -> None:
    """It would be an id to the route beside it."""
    answer = live.ask("PUT", "/v1/responses/input_tokens", b"{}")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_statuses_that_are_met_are_described(live: Live) -> None:
    paths: Any = document()["paths"]
    for method, path, _ in ROUTES:
        if not DESCRIBED[method, path].gives:
            assert method.lower() not in paths[path]
            continue
        told = path.replace("{id:path}", "x").replace("{id}", "x")
        answers = [
            live.ask(method, told, b"{}" if method == "POST" else None, **headers)
            for headers in (
                {},
                {"upgrade": "websocket"},
                {"host": "evil.example"},
                {"content_type": "text/plain"},
            )
        ]
        responses = paths[path_of(path)][method.lower()]["responses"]
        for answer in answers:
            assert str(answer.status) in responses, (path, answer)
