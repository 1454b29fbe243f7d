"""Answers that may be calls of tools, and keep a schema where they are not: in each API, whole and
in pieces, and by OpenAI's own client."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.gate import PATIENCE
from tests.server.live import Live

SEEDS = range(8)  # among whose answers are calls and texts
SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"],
          "additionalProperties": False}  # fmt: skip
CITY = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"],
        "additionalProperties": False}  # fmt: skip
HI = [{"role": "user", "content": "hi"}]
WEATHER = {"name": "weather", "parameters": CITY, "strict": True}
CHAT: dict[str, Any] = {
    "messages": HI,
    "tools": [{"type": "function", "function": WEATHER}],
    "response_format": {"type": "json_schema", "json_schema": {"name": "ok", "schema": SCHEMA}},
}
MESSAGES: dict[str, Any] = {
    "messages": HI,
    "max_tokens": 600,
    "tools": [{"name": "weather", "input_schema": CITY, "strict": True}],
    "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
}
RESPONSES: dict[str, Any] = {
    "input": "hi",
    "tools": [{"type": "function", **WEATHER}],
    "text": {"format": {"type": "json_schema", "name": "ok", "schema": SCHEMA}},
}

Told = tuple[str, list[str], str]  # the text, the arguments of calls, and how it ended


def of_chat(live: Live, body: dict[str, Any]) -> tuple[Told, Told]:
    (choice,) = live.post("/v1/chat/completions", body).json["choices"]
    message = choice["message"]
    calls = [each["function"]["arguments"] for each in message.get("tool_calls", ())]
    *chunks, _ = live.post("/v1/chat/completions", {**body, "stream": True}).events
    choices = [each["choices"][0] for each in chunks]
    deltas = [each["delta"] for each in choices]
    text = "".join(each.get("content") or "" for each in deltas)
    pieces: dict[int, str] = {}
    for delta in deltas:
        for call in delta.get("tool_calls", ()):
            said = pieces.get(call["index"], "") + call["function"]["arguments"]
            pieces[call["index"]] = said
    whole = message["content"] or "", calls, choice["finish_reason"]
    return whole, (text, list(pieces.values()), choices[-1]["finish_reason"])


def of_messages(live: Live, body: dict[str, Any]) -> tuple[Told, Told]:
    answer = live.post("/v1/messages", body).json
    text = "".join(each["text"] for each in answer["content"] if each["type"] == "text")
    inputs = [each["input"] for each in answer["content"] if each["type"] == "tool_use"]
    events = live.post("/v1/messages", {**body, "stream": True}).events
    deltas = [each["delta"] for each in events if "delta" in each]
    said = "".join(each.get("text", "") for each in deltas)
    pieces: dict[int, str] = {}
    for event in events:
        if event.get("delta", {}).get("type") == "input_json_delta":
            index = event["index"]
            pieces[index] = pieces.get(index, "") + event["delta"]["partial_json"]
    (reason,) = [each["stop_reason"] for each in deltas if "stop_reason" in each]
    calls = [json.dumps(json.loads(each)) for each in pieces.values()]
    return (text, [json.dumps(i) for i in inputs], answer["stop_reason"]), (said, calls, reason)


def of_responses(live: Live, body: dict[str, Any]) -> tuple[Told, Told]:
    def told(response: Any) -> Told:
        items = response["output"]
        texts = [part["text"] for each in items for part in each.get("content", ())]
        calls = [each["arguments"] for each in items if each["type"] == "function_call"]
        return "".join(texts), calls, response["status"]

    events = live.post("/v1/responses", {**body, "stream": True}).events
    return told(live.post("/v1/responses", body).json), told(events[-1]["response"])


APIS = pytest.mark.parametrize(
    ("ask", "body", "ends"),
    [
        (of_chat, CHAT, {"tool_calls", "stop"}),
        (of_messages, MESSAGES, {"tool_use", "end_turn"}),
        (of_responses, RESPONSES, {"completed"}),
    ],
)
Ask = Callable[[Live, dict[str, Any]], tuple[Told, Told]]


@APIS
def test_an_answer_is_calls_or_keeps_the_schema(
    roomy: Live, ask: Ask, body: dict[str, Any], ends: set[str]
) -> None:
    found = [ask(roomy, {**body, "seed": seed}) for seed in SEEDS]
    for whole, streamed in found:
        assert whole == streamed
        text, calls, _ = whole
        assert bool(text) is not bool(calls)
        if text:
            assert type(json.loads(text).pop("ok")) is bool
        assert {json.loads(each)["city"] for each in calls} <= {"Rome", "Oslo"}
    assert {bool(calls) for (_, calls, _), _ in found} == {True, False}
    assert {end for (_, _, end), _ in found} == ends


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/chat/completions", CHAT), ("/v1/messages", MESSAGES), ("/v1/responses", RESPONSES)],
)
def test_the_form_of_calls_is_told(
    roomy: Live, path: str, body: dict[str, Any], stream: bool
) -> None:
    found = roomy.post(path, {**body, "seed": 0, "stream": stream})
    assert found.headers["x-octavo-tools"] == "hermes-wrapper"
    plain = {name: value for name, value in body.items() if name != "tools"}
    assert "x-octavo-tools" not in roomy.post(path, {**plain, "stream": stream}).headers


@APIS
def test_a_call_that_must_be_made_is_one_whatever_the_schema_says(
    roomy: Live, ask: Ask, body: dict[str, Any], ends: set[str]
) -> None:
    choice = {"type": "any"} if ask is of_messages else "required"
    for seed in SEEDS[:2]:
        (text, calls, _), streamed = ask(roomy, {**body, "tool_choice": choice, "seed": seed})
        assert (text, calls) == streamed[:2]
        assert text == ""
        assert calls


@APIS
def test_what_must_not_be_called_is_not(
    roomy: Live, ask: Ask, body: dict[str, Any], ends: set[str]
) -> None:
    choice = {"type": "none"} if ask is of_messages else "none"
    for seed in SEEDS[:2]:
        (text, calls, _), _ = ask(roomy, {**body, "tool_choice": choice, "seed": seed})
        assert json.loads(text).keys() == {"ok"}
        assert not calls


@pytest.mark.parametrize(
    ("change", "field"),
    [({"tools": [{"type": "function", "function": {**WEATHER, "parameters":
       {"type": "object", "properties": {"a": {"not": {}}}}}}]}, "tools"),
     ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema":
       {"not": {}}}}}, "response_format.json_schema.schema")],
)  # fmt: skip
def test_the_one_that_cannot_be_kept_is_named(
    roomy: Live, change: dict[str, Any], field: str
) -> None:
    answer = roomy.post("/v1/chat/completions", {**CHAT, **change})
    assert answer.status == 400
    assert answer.json["error"]["param"] == field
    assert answer.error.startswith(f"{field}: the schema has not")


class Weather(BaseModel):
    city: Literal["Rome", "Oslo"]


class Verdict(BaseModel):
    ok: bool


def test_openais_client_parses_both(roomy: Live) -> None:
    seen = set()
    with OpenAI(base_url=f"{roomy.url}/v1", api_key="x", max_retries=0, timeout=PATIENCE) as client:
        for seed in SEEDS:
            found = client.chat.completions.parse(
                model="tiny", messages=[{"role": "user", "content": "hi"}], seed=seed,
                tools=[openai.pydantic_function_tool(Weather)], response_format=Verdict,
            )  # fmt: skip
            (choice,) = found.choices
            for call in choice.message.tool_calls or ():
                assert isinstance(call.function.parsed_arguments, Weather)
                seen.add("call")
            if choice.message.parsed is not None:
                seen.add("text")
            else:
                assert choice.message.tool_calls
    assert seen == {"call", "text"}


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # the client's own, of its types
def test_what_openais_client_parsed_is_taken_back(roomy: Live) -> None:
    tool = openai.pydantic_function_tool(Weather)
    own: Any = {"type": "function", **tool["function"]}
    with OpenAI(base_url=f"{roomy.url}/v1", api_key="x", max_retries=0, timeout=PATIENCE) as client:
        for seed in SEEDS:
            chat: list[Any] = [*HI]
            (choice,) = client.chat.completions.parse(
                model="tiny", messages=chat, seed=seed, tools=[tool], response_format=Verdict
            ).choices
            for answer in (choice.message, choice.message.model_dump()):
                more: Any = [*chat, answer, *HI]
                client.chat.completions.create(model="tiny", messages=more, max_tokens=1)
            found = client.responses.parse(
                model="tiny", input="hi", tools=[own], text_format=Verdict,
                extra_body={"seed": seed},
            )  # fmt: skip
            for items in (found.output, [each.model_dump() for each in found.output]):
                more = [*HI, *items, *HI]
                client.responses.create(model="tiny", input=more, max_output_tokens=1)
