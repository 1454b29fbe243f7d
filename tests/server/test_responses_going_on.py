"""/v1/responses that go on from answers that are kept, and from sessions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from octavo.server.auth import Keys
from tests.server.live import Live

RESPONSES = "/v1/responses"
ANN, BOB = "ann-has-a-long-key", "bob-has-a-long-key"


@pytest.fixture(scope="module")
def client(roomy: Live) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{roomy.url}/v1", api_key="none needed", max_retries=0) as found:
        yield found


def test_an_answer_goes_on_from_one_that_is_kept(roomy: Live, client: OpenAI) -> None:
    first = client.responses.create(
        model="tiny", input="hi", instructions="Be brief.", max_output_tokens=4, temperature=0
    )
    assert client.responses.retrieve(first.id).to_dict() == first.to_dict()
    second = client.responses.create(
        model="tiny", input="and?", previous_response_id=first.id, max_output_tokens=4,
        temperature=0,
    )  # fmt: skip
    said: Any = [{"role": "user", "content": "hi"}, *first.output,
                 {"role": "user", "content": "and?"}]  # fmt: skip
    alone = client.responses.create(
        model="tiny", input=said, max_output_tokens=4, temperature=0, store=False
    )
    assert second.output_text == alone.output_text
    assert second.usage is not None
    assert alone.usage is not None
    assert second.usage.input_tokens == alone.usage.input_tokens
    assert second.previous_response_id == first.id
    client.responses.delete(first.id)
    assert roomy.get(f"{RESPONSES}/{first.id}").status == 404
    assert roomy.get(f"{RESPONSES}/{alone.id}").status == 404
    assert roomy.get(f"{RESPONSES}/{second.id}").status == 200
    assert client.responses.create(
        model="tiny", input="so?", previous_response_id=second.id, max_output_tokens=1
    ).output
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.create(model="tiny", input="and?", previous_response_id=first.id)
    assert caught.value.code == "previous_response_not_found"


CHOSEN: Any = {
    "text": {"format": {"type": "json_schema", "name": "x", "schema": {"enum": [1, 22]}}}
}


def test_generated_ids_are_kept_as_they_were(roomy: Live) -> None:
    """Bytes that are no text come back as marks, whose ids are others."""
    ask: dict[str, Any] = {"input": "hi", "max_output_tokens": 5, "temperature": 0}
    first = roomy.post(RESPONSES, ask).json
    assert "\ufffd" in first["output"][0]["content"][0]["text"]
    more = {**ask, "input": "and?", "previous_response_id": first["id"]}
    for stream in (False, True):
        answer = roomy.post(RESPONSES, {**more, "stream": stream})
        second = answer.events[-1]["response"] if stream else answer.json
        usage, total = second["usage"], first["usage"]["total_tokens"]
        assert usage["input_tokens_details"]["cached_tokens"] >= total - 1
        assert usage["input_tokens"] == total + len("<>\n<user\nand?>\n<assistant\n") - 1
        third = roomy.post(RESPONSES, {**ask, "previous_response_id": second["id"]}).json
        cached = third["usage"]["input_tokens_details"]["cached_tokens"]
        assert cached >= usage["total_tokens"] - 1


def test_answers_that_go_on_are_those_of_whole_conversations(roomy: Live) -> None:
    previous: dict[str, Any] = {}
    said: list[Any] = []
    for text in ("hi", "and?", "so?"):
        said.append({"role": "user", "content": text})
        body = {**CHOSEN, "input": text, "temperature": 0, **previous}
        own = roomy.post(RESPONSES, body).json
        alone = roomy.post(RESPONSES, {**CHOSEN, "input": said, "temperature": 0}).json
        assert own["status"] == "completed"
        assert own["output"][0]["content"] == alone["output"][0]["content"]
        assert own["usage"]["input_tokens"] == alone["usage"]["input_tokens"]
        said += own["output"]
        previous = {"previous_response_id": own["id"]}


def test_a_session_goes_on(roomy: Live) -> None:
    session = roomy.post("/v1/sessions", {"messages": [{"role": "user", "content": "x"}]}).json
    body = {"input": "hi", "session": session["id"], "max_output_tokens": 3}
    first = roomy.post(RESPONSES, body).json
    second = roomy.post(RESPONSES, {**body, "stream": True}).events[-1]["response"]
    assert second["usage"]["input_tokens"] > first["usage"]["total_tokens"]
    found = roomy.get(f"/v1/sessions/{session['id']}").json
    assert (found["messages"], found["tokens"]) == (5, second["usage"]["total_tokens"])
    refused = roomy.post(RESPONSES, {**body, "instructions": "Be brief."})
    assert (refused.status, refused.json["error"]["param"]) == (400, "instructions")
    after = {"input": "so?", "previous_response_id": second["id"], "max_output_tokens": 1}
    cached = roomy.post(RESPONSES, after).json["usage"]["input_tokens_details"]["cached_tokens"]
    assert cached >= second["usage"]["total_tokens"] - 1


def test_nobody_sees_another_tenants_answers(tiny_path: Path) -> None:
    with Live(tiny_path, keys=Keys([ANN, BOB])) as server:
        body = {"input": "hi", "max_output_tokens": 1}
        id = server.post(RESPONSES, body, x_api_key=ANN).json["id"]
        path = f"{RESPONSES}/{id}"
        assert server.get(path, x_api_key=BOB).status == 404
        assert server.ask("DELETE", path, None, x_api_key=BOB).status == 404
        assert server.ask("POST", f"{path}/cancel", b"", x_api_key=BOB).status == 404
        more = {**body, "previous_response_id": id}
        assert server.post(RESPONSES, more, x_api_key=BOB).status == 404
        assert server.post(RESPONSES, more, x_api_key=ANN).status == 200
        assert server.get(path, x_api_key=ANN).status == 200


def test_a_count_is_what_the_same_request_reports(roomy: Live, client: OpenAI) -> None:
    tool: Any = {"type": "function", "name": "look", "parameters": None, "strict": False}
    ask: dict[str, Any] = {"model": "tiny", "input": "hi", "instructions": "Be brief.",
                           "tools": [tool], "truncation": "disabled"}  # fmt: skip
    told = roomy.post(f"{RESPONSES}/input_tokens", ask)
    assert told.headers["x-octavo-ignored"] == "truncation"
    assert told.headers["x-octavo-tools"]
    previous: dict[str, Any] = {}
    for text in ("hi", "and?"):
        each = {**ask, **previous, "input": text}
        counted = client.responses.input_tokens.count(**each)
        answer = client.responses.create(**each, max_output_tokens=3)
        assert answer.usage is not None
        assert counted.input_tokens == answer.usage.input_tokens
        assert counted.object == "response.input_tokens"
        previous = {"previous_response_id": answer.id}


@pytest.mark.parametrize(
    ("field", "value", "status"),
    [("personality", "friendly", 400), ("conversation", "conv_1", 400), ("temperature", 1, 400),
     ("input", None, 400), ("previous_response_id", "resp_none", 404)],
)  # fmt: skip
def test_what_a_count_cannot_have_is_named(
    roomy: Live, field: str, value: object, status: int
) -> None:
    found = roomy.post(f"{RESPONSES}/input_tokens", {"input": "hi", field: value})
    assert (found.status, found.json["error"]["param"]) == (status, field)
