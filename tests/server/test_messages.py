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
from tests.cli.tiny_model import TEMPLATE, write_tiny_model
from tests.gate import PATIENCE
from tests.server.anthropic_bodies import HI, MESSAGES, PAIR, SHORT, TOOLS
from tests.server.live import Live


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
        model="tiny", max_tokens=4, messages=more, tools=TOOLS, tool_choice={"type": "none"},
        extra_body={"ignore_eos": True},
    )  # fmt: skip
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


def test_silence_is_told_by_an_event(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "PING", 0.0)
    asked = {**SHORT, "max_tokens": 60, "ignore_eos": True, "stream": True}
    for _ in range(20):  # on a busy machine an answer may be there before anybody waits for it
        found = live.post(MESSAGES, asked)
        pings = [event for event in found.events if event["type"] == "ping"]
        if pings:
            break
    assert pings
    assert names(found.body).count("ping") == len(pings)


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
