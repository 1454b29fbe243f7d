"""/v1/chat/completions and /v1/completions over a real socket, whole and in pieces."""

from __future__ import annotations

import json
from typing import Any

import pytest

from octavo import LLM, SamplingParams
from tests.server.live import Live

HI: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def test_a_chat_is_answered_as_the_model_answers_it(live: Live, tiny_llm: LLM) -> None:
    found = live.post(CHAT, {**HI, "max_tokens": 6, "temperature": 0})
    (expected,) = tiny_llm.chat(HI["messages"], SamplingParams(max_tokens=6, temperature=0)).outputs
    assert found.status == 200
    body = found.json
    assert body["id"].startswith("chatcmpl-")
    assert (body["object"], body["model"]) == ("chat.completion", "tiny")
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": expected.text, "refusal": None},
            "logprobs": None,
            "finish_reason": "length",
        }
    ]
    assert body["usage"]["completion_tokens"] == 6
    assert found.headers["x-octavo-cache"].startswith("matched=")
    assert found.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("n", [1, 3])
def test_pieces_are_the_whole_answer(live: Live, n: int) -> None:
    body = {**HI, "max_tokens": 8, "seed": 3, "n": n}
    whole = live.post(CHAT, body).json
    streamed = live.post(CHAT, {**body, "stream": True, "stream_options": {"include_usage": True}})
    assert streamed.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert streamed.headers["cache-control"] == "no-cache"
    assert streamed.headers["x-accel-buffering"] == "no"
    *chunks, last, done = streamed.events
    assert done == "[DONE]"
    assert last["choices"] == []
    assert last["usage"] == whole["usage"] | {
        "prompt_tokens_details": last["usage"]["prompt_tokens_details"]
    }
    for index in range(n):
        (own, *more) = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == index]
        assert own["delta"] == {"role": "assistant", "content": ""}
        text = "".join(each["delta"].get("content", "") for each in more)
        ends = [each["finish_reason"] for each in more]
        assert text == whole["choices"][index]["message"]["content"]
        assert ends[-1] == whole["choices"][index]["finish_reason"]
        assert set(ends[:-1]) <= {None}


def test_several_prompts_are_several_choices(live: Live) -> None:
    body = {
        "prompt": [[104, 105], [111], [116, 119, 111]],
        "max_tokens": 4,
        "temperature": 0,
        "n": 2,
    }
    whole = live.post(COMPLETIONS, body).json
    assert [choice["index"] for choice in whole["choices"]] == list(range(6))
    *chunks, done = live.post(COMPLETIONS, {**body, "stream": True}).events
    texts = dict.fromkeys(range(6), "")
    for chunk in chunks:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["text"]
    assert texts == {choice["index"]: choice["text"] for choice in whole["choices"]}
    assert done == "[DONE]"


def test_what_is_only_noted_is_named(live: Live) -> None:
    found = live.post(CHAT, {**HI, "max_tokens": 1, "user": "me", "store": True, "metadata": None})
    assert (found.status, found.headers["x-octavo-ignored"]) == (200, "user, store")
    streamed = live.post(CHAT, {**HI, "max_tokens": 1, "user": "me", "stream": True})
    assert streamed.headers["x-octavo-ignored"] == "user"


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({**HI, "temprature": 1}, 400, "temprature", None),
        ({**HI, "model": "gpt-4o"}, 404, "model", "model_not_found"),
        ({"messages": [{"role": "user", "content": "x" * 200}]}, 400, None,
         "context_length_exceeded"),
        ({**HI, "logprobs": True, "top_logprobs": 21}, 400, "top_logprobs", None),
        ([], 400, None, None),
    ],
)  # fmt: skip
def test_errors_have_openais_shape(
    live: Live, body: object, status: int, param: str | None, code: str | None
) -> None:
    found = live.post(CHAT, body)
    error = found.json["error"]
    assert found.status == status
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert error["message"]


@pytest.mark.parametrize("body", [b"{", b" ", b'{"a": NaN}', b'"\\ud800"', b"\xff", b"[" * 200_000])
def test_what_is_no_json_is_said(live: Live, body: bytes) -> None:
    found = live.ask("POST", CHAT, body)
    assert found.status == 400
    assert found.error.startswith("the body is not JSON: ")


def test_no_body_is_one_that_says_nothing(live: Live) -> None:
    found = live.ask("POST", CHAT, b"")
    assert found.status == 400
    assert found.error.startswith("messages is missing")


def test_routes_and_methods_that_are_none(live: Live) -> None:
    assert (live.get("/nothing").status, live.get(CHAT).status) == (404, 405)
    assert live.get("/v1/models/other").json["error"]["param"] == "model"


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [({"prompt": ""}, "prompt", "prompt: the prompt is empty"),
     ({"prompt": ["a", ""]}, "prompt[1]", "prompt[1]: the prompt is empty"),
     ({"prompt": [[1], [999]]}, "prompt[1]", "prompt[1]: token id 999: expected a whole number"),
     ({"logit_bias": {"258": 1}}, "logit_bias", "logit_bias has 258: expected 0 to 257"),
     ({"stop_token_ids": [258]}, "stop_token_ids", "stop_token_ids has 258: expected 0 to 257"),
     ({"guided_regex": "a", "ignore_eos": True}, "ignore_eos", "ignore_eos=True: cannot be"),
     ({"guided_regex": "("}, "guided_regex", "guided_regex: the grammar is not supported"),
     ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}},
      "response_format.json_schema.schema",
      "response_format.json_schema.schema: the schema has not")],
)  # fmt: skip
def test_what_only_the_model_can_tell_is_named_too(
    live: Live, fields: dict[str, Any], param: str, message: str
) -> None:
    for stream in (False, True):
        found = live.post(COMPLETIONS, {"prompt": "x", "stream": stream, **fields})
        assert (found.status, found.json["error"]["param"]) == (400, param)
        assert found.error.startswith(message)


def test_an_error_quotes_no_more_than_its_start(live: Live) -> None:
    for path in (CHAT, "/v1/messages"):
        found = live.post(path, {**HI, "model": "x" * 100_000, "max_tokens": 1})
        assert found.status == 404
        assert len(found.error) <= 1001
        assert found.error.startswith("model='xxx")
    assert len(live.post(CHAT, {**HI, "x" * 100_000: 1}).json["error"]["param"]) == 1001


def test_variables_that_no_template_reads_are_noted(live: Live) -> None:
    body = {**HI, "max_tokens": 1, "chat_template_kwargs": {"x\r\ny: z": True}}
    assert live.post(CHAT, body).headers["x-octavo-ignored"] == "chat_template_kwargs"
    names = {"self": 1, "__class__": "x", "": True, "loop": 1, "caller": 1, "args": 1}
    assert live.post(CHAT, {**HI, "max_tokens": 1, "chat_template_kwargs": names}).status == 200
    nothing = {**HI, "max_tokens": 1, "chat_template_kwargs": {"x": None}}
    assert "x-octavo-ignored" not in live.post(CHAT, nothing).headers


def test_the_model_is_listed(live: Live) -> None:
    listed = live.get("/v1/models").json
    (model,) = listed["data"]
    assert (listed["object"], model["id"], model["max_model_len"]) == ("list", "tiny", 128)
    assert live.get("/v1/models/tiny").json == model


def test_health_and_readiness(live: Live) -> None:
    assert live.get("/health").json == {"status": "ok"}
    assert live.get("/ready").json == {"status": "ready"}


WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Rome", "Oslo"]}},
            "required": ["city"],
        },
    },
}


NAMED = {"type": "function", "function": {"name": "weather"}}


def test_an_answer_of_nothing_has_an_empty_text_whole_and_in_pieces(roomy: Live) -> None:
    body = {**HI, "tools": [WEATHER], "max_tokens": 0}
    (whole,) = roomy.post(CHAT, body).json["choices"]
    *chunks, _ = roomy.post(CHAT, {**body, "stream": True}).events
    texts = [each["choices"][0]["delta"]["content"] for each in chunks]
    assert (texts, whole["message"]["content"]) == ([None, ""], "")


def test_a_call_that_a_stop_broke_off_is_none_to_make(roomy: Live) -> None:
    body = {**HI, "tools": [WEATHER], "tool_choice": NAMED, "stop": '"city', "seed": 1}
    (whole,) = roomy.post(CHAT, body).json["choices"]
    *chunks, _ = roomy.post(CHAT, {**body, "stream": True}).events
    (call,) = whole["message"]["tool_calls"]
    assert call["function"]["arguments"].strip() == "{"
    assert whole["finish_reason"] == chunks[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("choice", ["required", NAMED])
def test_a_call_that_must_be_made_always_parses(roomy: Live, choice: Any) -> None:
    body = {
        **HI, "tools": [WEATHER], "tool_choice": choice, "parallel_tool_calls": False, "seed": 1,
    }  # fmt: skip
    (whole,) = roomy.post(CHAT, body).json["choices"]
    assert (whole["finish_reason"], whole["message"]["content"]) == ("tool_calls", None)
    (call,) = whole["message"]["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"])["city"] in ("Rome", "Oslo")
    *chunks, done = roomy.post(CHAT, {**body, "stream": True}).events
    deltas = [each["choices"][0]["delta"].get("tool_calls") for each in chunks]
    first, *more = [call for calls in deltas if calls for call in calls]
    assert [each["choices"][0]["delta"].get("content") for each in chunks] == [None] * len(chunks)
    assert first["function"] == {"name": "weather", "arguments": ""}
    assert {"index", "id", "type", "function"} == first.keys()
    arguments = "".join(each["function"]["arguments"] for each in more)
    assert arguments == call["function"]["arguments"]
    assert all(each.keys() == {"index", "function"} for each in more)
    assert (chunks[-1]["choices"][0]["finish_reason"], done) == ("tool_calls", "[DONE]")
    again = [*HI["messages"], whole["message"], result_of(call)]
    assert roomy.post(CHAT, {**body, "messages": again}).status == 200


def result_of(call: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}


@pytest.mark.parametrize(
    ("ends", "begins", "finishes"),
    [({}, "assistant", True), ({"add_generation_prompt": True}, "assistant", True),
     ({"add_generation_prompt": False}, "assistant", False),
     ({"continue_final_message": True}, " so, ", True),
     ({"continue_final_message": True, "add_generation_prompt": False}, " so, ", True)],
)  # fmt: skip
def test_a_prompt_ends_where_it_is_asked_to(
    live: Live, ends: dict[str, bool], begins: str, finishes: bool
) -> None:
    messages = [*HI["messages"], {"role": "assistant", "content": "It is so, "}]
    body = {"messages": messages, **ends}
    prompt = live.post("/apply-template", body).json["prompt"]
    assert prompt.rstrip("\n").endswith(begins) is finishes
    tokens = live.post("/tokenize", body).json["tokens"]
    draw = {"max_tokens": 6, "temperature": 0}
    chat = live.post(CHAT, {**body, **draw}).json
    plain = live.post(COMPLETIONS, {"prompt": tokens, **draw}).json
    assert chat["choices"][0]["message"]["content"] == plain["choices"][0]["text"]
    assert chat["usage"]["prompt_tokens"] == len(tokens)
