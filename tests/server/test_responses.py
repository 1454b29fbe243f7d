"""/v1/responses over a real socket, by OpenAI's own client and without it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import pydantic
import pytest
from openai import OpenAI

from octavo.errors import KernelError
from octavo.server.auth import ANYBODY
from tests.server.live import Live, slowed, talk, until

RESPONSES = "/v1/responses"
FUNCTION: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"enum": ["Rome", "Oslo"]}},
        "required": ["city"],
    },
}


class Weather(pydantic.BaseModel):
    city: Literal["Rome", "Oslo"]
    sunny: bool


@pytest.fixture(scope="module")
def client(roomy: Live) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{roomy.url}/v1", api_key="none needed", max_retries=0) as found:
        yield found


def test_an_answer_whole_and_in_pieces(client: OpenAI) -> None:
    ask: Any = {"model": "tiny", "input": "hi", "max_output_tokens": 8}
    more: Any = {"extra_body": {"seed": 5}}
    whole = client.responses.create(**ask, **more)
    assert (whole.status, whole.object) == ("incomplete", "response")
    assert whole.usage is not None
    assert whole.usage.output_tokens == 8
    with client.responses.stream(**ask, **more) as stream:
        events = list(stream)
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == whole.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.incomplete"
    assert events[-1].response.output_text == text


def test_what_it_has_to_be_is_parsed(client: OpenAI) -> None:
    whole = client.responses.parse(model="tiny", input="hi", text_format=Weather)
    assert isinstance(whole.output_parsed, Weather)
    with client.responses.stream(model="tiny", input="hi", text_format=Weather) as stream:
        assert isinstance(stream.get_final_response().output_parsed, Weather)


def test_a_call_and_its_result(client: OpenAI) -> None:
    tools: Any = [FUNCTION, {"type": "web_search"}]
    ask: Any = {"model": "tiny", "tools": tools, "parallel_tool_calls": False}
    first = client.responses.create(**ask, input="hi", tool_choice="required")
    (call,) = first.output
    assert call.type == "function_call"
    assert json.loads(call.arguments)["city"] in ("Rome", "Oslo")
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    for asked in (
        {"previous_response_id": first.id, "input": [result]},
        {"input": [{"role": "user", "content": "hi"}, call.to_dict(), result]},
    ):
        second = client.responses.create(
            **ask, **asked, max_output_tokens=4, extra_body={"seed": 1}
        )
        assert second.usage is not None
        assert second.usage.output_tokens == 4


def test_a_custom_tool_is_given_text_of_its_form(roomy: Live, client: OpenAI) -> None:
    form = {"type": "grammar", "syntax": "regex", "definition": 'say "[ab]{3}"\n'}
    tool: Any = {"type": "custom", "name": "run", "format": form}
    space: Any = {"type": "namespace", "name": "os", "description": "", "tools": [tool]}
    choice: Any = {"type": "custom", "name": "run", "namespace": "os"}
    ask: Any = {"model": "tiny", "input": "hi", "tools": [space], "tool_choice": choice}
    (call,) = client.responses.create(**ask).output
    assert call.type == "custom_tool_call"
    assert (call.name, call.namespace) == ("run", "os")
    assert call.input[:5] + call.input[-2:] == 'say ""\n'
    assert set(call.input[5:-2]) <= {"a", "b"}
    found = roomy.post(RESPONSES, {**ask, "stream": True})
    deltas = [e["delta"] for e in found.events if e["type"].endswith("input.delta")]
    (done,) = [e for e in found.events if e["type"].endswith("input.done")]
    assert "".join(deltas) == done["input"]


def test_a_custom_tool_may_have_a_lark_grammar(client: OpenAI) -> None:
    definition = """start: "*** Begin\\n" line{2} "*** End" LF?
line: "+" /[^a-z\\n]{1,4}/ LF
%import common.LF
"""
    form = {"type": "grammar", "syntax": "lark", "definition": definition}
    tool: Any = {"type": "custom", "name": "patch", "format": form}
    choice: Any = {"type": "custom", "name": "patch"}
    (call,) = client.responses.create(
        model="tiny", input="hi", tools=[tool], tool_choice=choice
    ).output
    assert call.type == "custom_tool_call"
    assert re.fullmatch(r"\*\*\* Begin\n(\+[^a-z\n]{1,4}\n){2}\*\*\* End\n?", call.input), (
        call.input
    )


def test_an_answer_that_streams_is_cancelled(
    roomy: Live, client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as slow:
        slow.setattr(roomy.llm.loop.engine, "step", slowed(roomy, 0.02))
        stream = client.responses.create(
            model="tiny", input="hi", stream=True, extra_body={"ignore_eos": True}
        )
        events = iter(stream)
        created = next(events)
        assert created.type == "response.created"
        found = next(event for event in events if event.type == "response.output_text.delta")
        cancelled = client.responses.cancel(created.response.id)
        *_, last = events
    assert last.type == "response.incomplete"
    assert last.response.status == cancelled.status == "cancelled"
    assert last.response.output_text.startswith(found.delta)
    assert cancelled.output_text == last.response.output_text
    assert client.responses.retrieve(created.response.id).status == "cancelled"
    until(lambda: roomy.service.loaded.admission.num_open == 0)
    again = roomy.ask("POST", f"{RESPONSES}/{created.response.id}/cancel", b"")
    assert (again.status, "has ended" in again.error) == (400, True)
    assert roomy.ask("POST", f"{RESPONSES}/resp_none/cancel", b"").status == 404
    refused = roomy.post(f"{RESPONSES}/{created.response.id}/cancel", {"reason": "late"})
    assert (refused.status, refused.json["error"]["param"]) == (400, "reason")


def test_what_does_not_stream_is_not_cancelled(
    roomy: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"input": "hi", "max_output_tokens": 30, "ignore_eos": True}
    with monkeypatch.context() as slow, ThreadPoolExecutor(1) as pool:
        slow.setattr(roomy.llm.loop.engine, "step", slowed(roomy, 0.02))
        answer = pool.submit(roomy.post, RESPONSES, body, x_request_id="whole")
        stored = roomy.service.stored
        until(lambda: stored.find_running(ANYBODY.name, "resp_whole") is not None)
        refused = roomy.ask("POST", f"{RESPONSES}/resp_whole/cancel", b"")
        whole = answer.result()
    assert (refused.status, "does not stream" in refused.error) == (400, True)
    assert (whole.status, whole.json["usage"]["output_tokens"]) == (200, 30)


def test_a_failure_in_a_stream_is_an_event(roomy: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise KernelError("a broken step")

    with monkeypatch.context() as broken:
        broken.setattr(roomy.llm.loop.engine, "step", fail)
        found = roomy.post(RESPONSES, {"input": "hi", "stream": True})
    assert found.status == 200
    assert [event["type"] for event in found.events] == [
        "response.created", "response.in_progress", "response.failed",
    ]  # fmt: skip
    response = found.events[-1]["response"]
    assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
    assert roomy.get(f"{RESPONSES}/{response['id']}").json == response


@pytest.mark.parametrize("depth", [100, 300, 900])
@pytest.mark.parametrize("name", ["metadata", "tools", "text"])
def test_what_is_told_back_is_not_too_deep(roomy: Live, name: str, depth: int) -> None:
    """JSON is read to more levels than it is written to."""
    deep = '{"a":' * depth + "1" + "}" * depth
    given = {
        "metadata": deep,
        "tools": f'[{{"type": "web_search", "filters": {deep}}}]',
        "text": f'{{"format": {{"type": "json_schema", "name": "x", "schema": {deep}}}}}',
    }[name]
    for stream in ("false", "true"):
        body = f'{{"input": "hi", "max_output_tokens": 1, "{name}": {given}, "stream": {stream}}}'
        found = roomy.ask("POST", RESPONSES, body.encode())
        if depth > 100 or name == "text":
            param: str = found.json["error"]["param"]
            assert (found.status, param.partition(".")[0]) == (400, name)
        else:
            assert found.status == 200
            assert b"server_error" not in found.body


def test_errors_before_an_answer_have_openais_shape(roomy: Live) -> None:
    found = roomy.post(RESPONSES, {"input": "x" * 5000, "stream": True})
    assert (found.status, found.json["error"]["code"]) == (400, "context_length_exceeded")
    found = roomy.post(RESPONSES, {"input": "hi", "modle": "x"})
    assert (found.status, found.json["error"]["param"]) == (400, "modle")
    assert roomy.post(RESPONSES, {"input": "hi", "model": "gpt-5"}).status == 404


def test_what_changes_no_answer_is_named(roomy: Live) -> None:
    body = {
        "input": "hi", "max_output_tokens": 1, "tools": [{"type": "web_search"}], "user": "me",
        "reasoning": {"effort": "low", "summary": "auto"}, "store": False,
    }  # fmt: skip
    found = roomy.post(RESPONSES, body)
    named = found.headers["x-octavo-ignored"].split(", ")
    assert found.status == 200
    assert set(named) == {"user", "reasoning.summary", "reasoning.effort", "tools[0]"}


def test_an_upgrade_is_refused_plainly(roomy: Live) -> None:
    head = (
        f"GET {RESPONSES} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade, close\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    assert talk(roomy, head.encode()).startswith(b"HTTP/1.1 426 ")
    assert roomy.get(RESPONSES).status == 405
