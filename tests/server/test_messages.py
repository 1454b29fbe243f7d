"""/v1/messages over a real socket, and as Anthropic's own client asks it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic

from octavo.server import sse
from octavo.server.auth import Keys
from tests.cli.tiny_model import TEMPLATE, write_tiny_model
from tests.gate import PATIENCE
from tests.server.live import Live, until

MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
HI: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
SHORT: dict[str, Any] = {**HI, "max_tokens": 6}
KEY = "a-key-of-tests-that-is-long-enough"
PAIR = {"type": "object", "additionalProperties": False, "required": ["a", "b"],
        "properties": {"a": {"type": "boolean"}, "b": {"enum": ["x", "y"]}}}  # fmt: skip
TOOLS: list[Any] = [
    {"name": "pair", "description": "Pairs", "input_schema": PAIR, "strict": True},
    {"name": "now", "input_schema": {"type": "object", "properties": {}}},
]


@pytest.fixture(scope="module")
def client(roomy: Live) -> Iterator[Anthropic]:
    with Anthropic(
        base_url=roomy.url, api_key="none needed", max_retries=0, timeout=PATIENCE
    ) as found:
        yield found


def names(body: bytes) -> list[str]:
    lines = body.decode().split("\n")
    return [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]


def test_a_message_is_answered_and_streamed_alike(client: Anthropic) -> None:
    asked: dict[str, Any] = {
        **SHORT, "model": "tiny", "system": "Be brief.", "extra_body": {"seed": 4},
    }  # fmt: skip
    client.messages.create(**asked)  # from here on the cache has the prompt
    whole = client.messages.create(**asked)
    assert whole.stop_reason == "max_tokens"
    assert whole.usage.output_tokens == 6
    assert whole.content[0].type == "text"
    with client.messages.stream(**asked) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text
    own = {"id": whole.id, "stop_details": None}  # which the client sets, in streams alone
    assert final.to_dict() | own == whole.to_dict() | own


def test_the_events_of_a_stream(live: Live) -> None:
    found = live.post(f"{MESSAGES}?beta=true", {**SHORT, "seed": 4, "stream": True})
    assert found.headers["content-type"] == "text/event-stream; charset=utf-8"
    first, second, *deltas, stop, ending, last = names(found.body)
    assert (first, second, stop) == (
        "message_start", "content_block_start", "content_block_stop",
    )  # fmt: skip
    assert set(deltas) == {"content_block_delta"}
    assert (ending, last) == ("message_delta", "message_stop")
    assert [event["type"] for event in found.events] == names(found.body)


def test_calls_of_tools_come_as_blocks(client: Anthropic) -> None:
    asked: dict[str, Any] = {
        **HI, "model": "tiny", "max_tokens": 400, "tools": TOOLS,
        "tool_choice": {"type": "tool", "name": "pair"}, "extra_body": {"seed": 1},
    }  # fmt: skip
    whole = client.messages.create(**asked)
    (call,) = whole.content
    assert (whole.stop_reason, call.type) == ("tool_use", "tool_use")
    assert call.name == "pair"
    assert set(call.input) == {"a", "b"}
    with client.messages.stream(**asked) as stream:
        final = stream.get_final_message()
    assert final.stop_reason == "tool_use"
    assert [(each.name, each.input) for each in final.content if each.type == "tool_use"] == [
        (call.name, call.input)
    ]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "done"}
    more = [*HI["messages"], whole.to_param(), {"role": "user", "content": [result]}]
    answer = client.messages.create(
        model="tiny", max_tokens=4, messages=more, tools=TOOLS, tool_choice={"type": "none"}
    )
    assert answer.stop_reason == "max_tokens"


def test_the_clients_tool_runner_runs(client: Anthropic) -> None:
    seen = []

    @anthropic.beta_tool
    def flip(up: bool) -> str:
        """Flip a switch."""
        seen.append(up)
        return "done"

    runner = client.beta.messages.tool_runner(
        model="tiny", max_tokens=400, messages=HI["messages"], tools=[flip], max_iterations=2,
        tool_choice={"type": "any", "disable_parallel_tool_use": True}, extra_body={"seed": 1},
    )  # fmt: skip
    reasons = [message.stop_reason for message in runner]
    assert reasons == ["tool_use", "tool_use"]
    assert seen
    assert all(isinstance(each, bool) for each in seen)


def test_a_format_holds_the_answer(client: Anthropic) -> None:
    answer = client.messages.create(
        model="tiny", max_tokens=100, messages=HI["messages"], extra_body={"seed": 1},
        output_config={"format": {"type": "json_schema", "schema": PAIR}},
    )  # fmt: skip
    assert answer.content[0].type == "text"
    assert set(json.loads(answer.content[0].text)) == {"a", "b"}


def test_a_count_is_what_the_answer_reports(client: Anthropic) -> None:
    asked: dict[str, Any] = {
        "model": "tiny", "system": [{"type": "text", "text": "Be brief."}], "tools": TOOLS,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "count me"}]}],
    }  # fmt: skip
    usage = client.messages.create(max_tokens=1, **asked).usage
    assert usage.cache_read_input_tokens is not None
    assert usage.cache_creation_input_tokens is not None
    prompt = usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens
    assert client.messages.count_tokens(**asked).input_tokens == prompt
    assert client.beta.messages.count_tokens(betas=["x"], **asked).input_tokens == prompt


def test_the_answer_says_which_sequence_ended_it(live: Live) -> None:
    asked = {**HI, "max_tokens": 12, "seed": 4}
    (block,) = live.post(MESSAGES, asked).json["content"]
    end = block["text"][3:5]
    stopped = {**asked, "stop_sequences": ["never said", end]}
    whole = live.post(MESSAGES, stopped).json
    assert (whole["stop_reason"], whole["stop_sequence"]) == ("stop_sequence", end)
    assert whole["content"] == [{"type": "text", "text": block["text"].partition(end)[0]}]
    *_, ending, _ = live.post(MESSAGES, {**stopped, "stream": True}).events
    assert ending["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": end}


def test_what_is_only_noted_is_named(live: Live) -> None:
    system = "x-anthropic-billing-header: cch=1;\nBe brief."
    thinking = {"type": "enabled", "budget_tokens": 1024}
    asked = {**SHORT, "system": system, "thinking": thinking, "metadata": {"user_id": "u"}}
    for stream in (False, True):
        found = live.post(MESSAGES, {**asked, "stream": stream}, anthropic_beta="x")
        assert found.status == 200
        assert found.headers["x-octavo-ignored"] == (
            "metadata, x-anthropic-billing-header, thinking.budget_tokens, anthropic-beta, thinking"
        )
        assert found.headers["request-id"] == found.headers["x-request-id"]


@pytest.mark.parametrize(
    ("body", "status", "kind", "said"),
    [({**SHORT, "max_token": 1}, 400, "invalid_request_error", "unknown field 'max_token'"),
     ({**SHORT, "model": "claude-x"}, 404, "not_found_error", "model='claude-x'"),
     ({"messages": [{"role": "user", "content": "x" * 200}], "max_tokens": 1}, 400,
      "invalid_request_error", "prompt is too long: ")],
)  # fmt: skip
def test_errors_have_anthropics_shape(
    live: Live, body: object, status: int, kind: str, said: str
) -> None:
    found = live.post(MESSAGES, body)
    assert (found.status, found.json["type"]) == (status, "error")
    assert found.json["request_id"] == found.headers["request-id"]
    assert found.json["error"]["type"] == kind
    assert found.error.startswith(said)


def test_errors_have_their_types(tiny_path: Path) -> None:
    with Live(tiny_path, keys=Keys([KEY]), max_body=1024) as live:
        with Anthropic(base_url=live.url, api_key=KEY, max_retries=0, timeout=PATIENCE) as client:
            assert client.messages.create(model="tiny", **SHORT).type == "message"
            with pytest.raises(anthropic.ContentTooLargeError, match="request_too_large"):
                client.messages.create(model="tiny", system="x" * 1024, **SHORT)
            with pytest.raises(anthropic.BadRequestError, match="invalid_request_error"):
                client.messages.create(model="tiny", **SHORT, extra_body={"n": 2})
            with pytest.raises(anthropic.NotFoundError, match="not_found_error"):
                client.models.retrieve("other")
            live.service.state = "draining"
            with pytest.raises(anthropic.OverloadedError, match="overloaded_error"):
                client.messages.create(model="tiny", **SHORT)
            until(lambda: live.service.tally.requests[MESSAGES, 529] == 1)  # as it was sent
        with (
            Anthropic(
                base_url=live.url, api_key="wrong", max_retries=0, timeout=PATIENCE
            ) as client,
            pytest.raises(anthropic.AuthenticationError, match="authentication_error"),
        ):
            client.messages.create(model="tiny", **SHORT)
        with Anthropic(
            base_url=live.url, auth_token=KEY, max_retries=0, timeout=PATIENCE
        ) as client:
            live.service.state = "ready"
            assert client.messages.create(model="tiny", **SHORT).type == "message"


def test_too_many_that_wait_are_a_rate_limit(tiny_path: Path) -> None:
    with Live(tiny_path, max_waiting=1) as live:
        place = live.service.loaded.admission.enter("")
        found = live.post(MESSAGES, SHORT)
        place.__exit__()
        assert (found.status, found.json["error"]["type"]) == (429, "rate_limit_error")
        assert 1 <= int(found.headers["retry-after"]) <= 60


@pytest.mark.parametrize("limit", ["9" * 5000, "0", "1001", "-1", "%d9%a3", ""])
def test_a_list_of_models_has_a_limit(live: Live, limit: str) -> None:
    found = live.get(f"/v1/models?limit={limit}", anthropic_version="2023-06-01")
    assert (found.status, found.json["error"]["type"]) == (400, "invalid_request_error")


def test_models_are_listed_in_the_shape_of_the_caller(live: Live) -> None:
    with Anthropic(
        base_url=live.url, api_key="none needed", max_retries=0, timeout=PATIENCE
    ) as client:
        (model,) = client.models.list()
        assert (model.type, model.id, model.display_name) == ("model", "tiny", "tiny")
        assert (model.lifecycle, model.max_input_tokens) == ("active", 128)
        assert model.created_at.timestamp() == live.service.started
        assert client.models.retrieve("tiny") == model
        assert client.models.list(after_id="tiny").data == []
        with pytest.raises(anthropic.BadRequestError, match="limit"):
            client.models.list(limit=0)
    assert live.get("/v1/models").json["object"] == "list"


def test_silence_is_told_by_an_event(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "PING", 0.0)
    found = live.post(MESSAGES, {**SHORT, "max_tokens": 60, "ignore_eos": True, "stream": True})
    pings = [event for event in found.events if event["type"] == "ping"]
    assert pings
    assert names(found.body).count("ping") == len(pings)


def marked(text: str, **mark: str) -> dict[str, Any]:
    return {"type": "text", "text": text, "cache_control": {"type": "ephemeral", **mark}}


def test_the_second_call_reads_what_the_first_created(roomy: Live) -> None:
    def ask(question: str, **more: object) -> Any:
        system = [marked("A long story about a whale and the sea." * 3, ttl="1h")]
        messages = [{"role": "user", "content": question}]
        return roomy.post(
            MESSAGES,
            {"max_tokens": 2, "system": system, "messages": messages, "cache_salt": "own", **more},
        )

    first = ask("Who swims?")
    pinned = int(first.headers["x-octavo-pinned"])
    assert pinned % 16 == 0
    assert 100 < pinned < len("A long story about a whale and the sea." * 3) + 30
    usage = first.json["usage"]
    assert (usage["cache_creation_input_tokens"], usage["cache_read_input_tokens"]) == (pinned, 0)
    usage = ask("How deep is it?").json["usage"]
    assert usage["cache_creation_input_tokens"] == 0
    assert usage["cache_read_input_tokens"] >= pinned
    *_, ending, _ = ask("And how deep?", stream=True).events
    assert ending["usage"]["cache_read_input_tokens"] >= pinned
    view = roomy.get("/v1/cache?cache_salt=own").json
    assert [pin["num_tokens"] for pin in view["pins"]] == [pinned]


def test_a_stream_creates_what_its_marks_say(roomy: Live) -> None:
    body = {
        "max_tokens": 2, "messages": [{"role": "user", "content": "All of this is marked."}],
        "cache_control": {"type": "ephemeral"}, "cache_salt": "stream", "stream": True,
    }  # fmt: skip
    *_, ending, _ = roomy.post(MESSAGES, body).events
    usage = ending["usage"]
    created = usage["cache_creation_input_tokens"]
    assert created > 0
    prompt = usage["input_tokens"] + created + usage["cache_read_input_tokens"]
    own = {"max_tokens", "stream", "cache_salt"}  # of the answer
    counted = {name: value for name, value in body.items() if name not in own}
    assert roomy.post(COUNT, counted).json["input_tokens"] == prompt


def test_over_the_budget_nothing_is_pinned_and_the_header_says_so(
    roomy: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roomy.engine, "_most_pinned", 0)
    text = "Nothing of this is ever kept, however long it may be."
    asked = {**SHORT, "messages": [{"role": "user", "content": [marked(text)]}]}
    found = roomy.post(MESSAGES, {**asked, "cache_salt": "poor"})
    assert found.headers["x-octavo-pinned"].startswith("0; ")
    assert found.json["usage"]["cache_creation_input_tokens"] == 0
    *_, ending, _ = roomy.post(MESSAGES, {**asked, "cache_salt": "poor", "stream": True}).events
    why = found.headers["x-octavo-pinned"].removeprefix("0; ")
    assert ending["pinned"] == {"num_tokens": 0, "why_not": why}
    assert roomy.get("/v1/cache?cache_salt=poor").json["pins"] == []


def test_a_mark_before_all_messages(roomy: Live) -> None:
    tools = [{**TOOLS[0], "cache_control": {"type": "ephemeral"}}, TOOLS[1]]
    found = roomy.post(MESSAGES, {**SHORT, "tools": tools, "cache_salt": "tools"})
    assert int(found.headers["x-octavo-pinned"]) > 400  # the text about them stands first


THINKING = TEMPLATE.replace(
    "assistant\n{% endif %}",
    "assistant\n{{ '<think>\n' if enable_thinking else '<think>\n\n</think>\n\n' }}{% endif %}",
)


def test_thinking_is_switched_where_the_template_has_a_switch(tmp_path: Path) -> None:
    with Live(write_tiny_model(tmp_path / "thinks.gguf", template=THINKING)) as server:

        def ask(kind: str, **more: object) -> Any:
            asked = {**SHORT, "seed": 4, "thinking": {"type": kind}, **more}
            found = server.post(MESSAGES, asked)
            assert "x-octavo-ignored" not in found.headers
            return found

        (block,) = ask("adaptive").json["content"]
        assert block["type"] == "thinking"
        assert block["thinking"]
        _, start, *deltas, signature, _, _, _ = ask("adaptive", stream=True).events
        assert start["content_block"]["type"] == "thinking"
        assert "".join(each["delta"]["thinking"] for each in deltas) == block["thinking"]
        assert signature["delta"] == {"type": "signature_delta", "signature": block["signature"]}
        usage = ask("adaptive").json["usage"]
        assert usage["output_tokens_details"]["thinking_tokens"] == usage["output_tokens"]
        (block,) = ask("disabled").json["content"]
        assert block["type"] == "text"


def test_a_stream_that_breaks_off_does_not_look_whole(roomy_path: Path) -> None:
    with Live(roomy_path) as server:
        connection = server.connect()
        asked = {**HI, "max_tokens": 4000, "ignore_eos": True, "stream": True}
        kind = {"content-type": "application/json"}
        connection.request("POST", MESSAGES, json.dumps(asked).encode(), kind)
        response = connection.getresponse()
        assert response.readline() == b"event: message_start\n"
        server.loop.call_soon_threadsafe(server.service.closing.set)
        *_, name, data, _, _ = response.read().decode().split("\n")
        connection.close()
    assert name == "event: error"
    error = json.loads(data.removeprefix("data: "))
    assert (error["type"], error["error"]["type"]) == ("error", "overloaded_error")
