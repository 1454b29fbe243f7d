"""What fields of bodies hold: the document says it as the server reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from octavo.server.described import DESCRIBED
from octavo.server.shapes import SHAPES, shared
from octavo.server.shapes import chat as chat_shapes
from octavo.server.shapes import messages as messages_shapes
from octavo.server.shapes import responses as responses_shapes
from tests.server.documented import accepts
from tests.server.live import Live

BODIES = sorted((Path(__file__).parent / "bodies").glob("*.json"))
CHAT, COMPLETIONS, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/messages"
RESPONSES = "/v1/responses"
HI = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
OWN_TOOL = {"name": "f", "input_schema": {"type": "object"}}
FLAT_TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}
SCHEMA = {"name": "s", "schema": {"type": "object"}}
MARK = {"type": "ephemeral", "ttl": "1h", "scope": "x"}


def chat(message: object, **more: object) -> tuple[str, dict[str, object]]:
    return CHAT, {"messages": [message], "max_tokens": 1, **more}


def messages(*said: object, **more: object) -> tuple[str, dict[str, object]]:
    return MESSAGES, {"messages": list(said), "max_tokens": 1, **more}


def block(role: str, **held: object) -> tuple[str, dict[str, object]]:
    return messages({"role": role, "content": [held]}, HI)


def responses(item: object, **more: object) -> tuple[str, dict[str, object]]:
    return RESPONSES, {"input": [item, HI], "max_output_tokens": 1, **more}


def told(role: str, content: object) -> tuple[str, dict[str, object]]:
    return chat({"role": role, "content": content})


RIGHT = [
    *(told(role, "x") for role in ("system", "developer", "user", "assistant")),
    told("user", [{"type": "text", "text": "x", "prompt_cache_breakpoint": {}}]),
    told("assistant", [{"type": "refusal", "refusal": "x"}]),
    chat({"role": "assistant", "content": None, "tool_calls": [CALL], "audio": None}),
    chat({"role": "assistant", "content": None, "refusal": "no", "parsed": {}, "annotations": []}),
    chat({"role": "assistant", "content": "x", "refusal": None, "reasoning_content": "y"}),
    chat({"role": "tool", "content": "x", "tool_call_id": "c"}),
    chat(HI, tools=[TOOL, {"type": "web_search_preview", "x": 1}], tool_choice="auto"),
    chat(HI, tools=[TOOL], tool_choice={"type": "function", "function": {"name": "f"}}),
    chat(HI, tools=[TOOL], tool_choice={
        "type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOL | {
            "function": {"name": "f"}}]}}),
    chat(HI, response_format={"type": "json_schema", "json_schema": SCHEMA}),
    chat(HI, response_format={"type": "text"}, guided_choice=["a"]),
    chat(HI, structured_outputs={"regex": "a", "json": None, "json_object": False}),
    chat(HI, stop="x", logit_bias={"3": -100}, stop_token_ids=[1.0], reasoning_effort="low"),
    chat(HI, stream=True, stream_options={"include_usage": True}, chat_template_kwargs={"a": 1}),
    (COMPLETIONS, {"prompt": [[1, 2.0], [3]], "max_tokens": 1.0}),
    (COMPLETIONS, {"prompt": ["a", "b"], "max_tokens": 1, "structured_outputs": {"choice": ["a"]}}),
    messages({"role": "system", "content": "x"}, HI, system=[{"type": "text", "text": "x"}]),
    block("user", type="text", text="x", cache_control=MARK, citations=[]),
    block("user", type="tool_result", tool_use_id="c", is_error=True),
    block("user", type="tool_result", tool_use_id="c", content=[{"type": "text", "text": "x"}]),
    block("assistant", type="thinking", thinking="x", signature="y"),
    block("assistant", type="redacted_thinking", data="x"),
    block("assistant", type="tool_use", id="c", name="f", input={}, caller={"type": "direct"}),
    messages(HI, tools=[{**OWN_TOOL, "type": "custom", "allowed_callers": ["direct"]}],
             tool_choice={"type": "tool", "name": "f", "disable_parallel_tool_use": True}),
    messages(HI, tools=[{"type": "web_search_20250305", "name": "w"}, OWN_TOOL],
             tool_choice={"type": "any"}),
    messages(HI, thinking={"type": "enabled", "budget_tokens": 1024.0, "display": "omitted"}),
    messages(HI, output_config={"effort": "max", "format": {"type": "json_schema", **SCHEMA}}),
    messages(HI, cache_control=MARK, stop_sequences=["x"]),
    responses({"role": "developer", "content": [{"type": "input_text", "text": "x"}]}),
    responses({"type": "message", "role": "assistant", "id": "m", "status": "completed",
               "content": [{"type": "output_text", "text": "x", "annotations": []},
                           {"type": "refusal", "refusal": "x"}]}),
    responses({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}),
    responses({"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "x"}),
    responses({"type": "function_call_output", "call_id": "c", "output": "x"}),
    responses({"type": "reasoning", "summary": [], "encrypted_content": "x"}),
    responses({"type": "reasoning", "content": [{"type": "reasoning_text", "text": "x"}]}),
    responses({"type": "web_search_call", "id": "w"}),
    responses(HI, tools=[FLAT_TOOL, {"type": "custom", "name": "g", "format": {
        "type": "grammar", "syntax": "regex", "definition": "a"}}, {
        "type": "namespace", "name": "n", "tools": [FLAT_TOOL]}, {"type": "web_search"}],
        tool_choice={"type": "function", "name": "f", "namespace": "n"}),
    responses(HI, tools=[FLAT_TOOL, {"type": "mcp"}], tool_choice={
        "type": "allowed_tools", "mode": "required", "tools": [
            {"type": "function", "name": "f"}, {"type": "mcp"}]}),
    responses(HI, text={"format": {"type": "json_schema", **SCHEMA}, "verbosity": "low"},
              reasoning={"effort": "none", "summary": "auto"}, truncation="disabled"),
    ("/v1/embeddings", {"input": [1.0, 2], "encoding_format": "base64"}),
    ("/v1/sessions", {"prompt": [[1, 2]]}), ("/v1/sessions", {"messages": [HI], "tools": [TOOL]}),
    ("/tokenize", {"messages": [HI], "tools": [TOOL]}), ("/detokenize", {"tokens": [1.0]}),
]  # fmt: skip
WRONG = [
    chat({"role": "user"}), chat({"role": "robot", "content": "x"}), told("user", []),
    told("user", 1), told("user", [{"type": "image_url", "image_url": {"url": "x"}}]),
    told("user", [{"type": "text"}]), told("user", [{"type": "refusal", "refusal": "x"}]),
    chat({**HI, "tool_calls": [CALL]}), chat({**HI, "audio": {}}), chat({**HI, "name": 1}),
    chat({"role": "assistant", "content": None}),
    chat({"role": "assistant", "content": "x", "refusal": "no"}),
    chat({"role": "assistant", "content": "x", "annotations": [{}]}),
    chat({"role": "assistant", "tool_calls": [{**CALL, "id": None}]}),
    chat({"role": "assistant", "tool_calls": [{"id": "c", "function": {"arguments": "{}"}}]}),
    chat({"role": "tool", "content": "x"}),
    chat(HI, tools=[{"type": "function"}]), chat(HI, tools=[{"type": "bash_20250124"}]),
    chat(HI, tools=[{"type": "function", "function": {"name": "a b"}}]),
    chat(HI, tools=[{"type": "function", "function": {"name": "f", "parameters": {
        "type": "array"}}}]),
    chat(HI, tools=[TOOL] * 129), chat(HI, tools=[TOOL], tool_choice="any"),
    chat(HI, tools=[TOOL], tool_choice={"type": "function"}),
    chat(HI, response_format={"type": "xml"}), chat(HI, response_format={}),
    chat(HI, response_format={"type": "json_schema", "json_schema": {"name": "s"}}),
    chat(HI, structured_outputs={"regex": "a", "choice": ["a"]}),
    chat(HI, structured_outputs={"json": {}, "json_object": 0}),
    chat(HI, structured_outputs={}), chat(HI, guided_choice=[]), chat(HI, guided_choice=[""]),
    chat(HI, stop=["x"] * 17), chat(HI, stop="x" * 257), chat(HI, stop=""), chat(HI, model=""),
    chat(HI, logit_bias={"a": 1}), chat(HI, logit_bias={"1": 101}), chat(HI, stop_token_ids=[-1]),
    chat(HI, stop_token_ids=[1.5]), chat(HI, max_completion_tokens=0.5),
    chat(HI, reasoning_effort="most"), chat(HI, chat_template_kwargs={"a": []}),
    chat(HI, chat_template_kwargs={"messages": 1}), chat(HI, prompt_cache_key="x" * 257),
    chat(HI, stream=True, stream_options={"usage": True}),
    (COMPLETIONS, {"prompt": [[]]}), (COMPLETIONS, {"prompt": [1.5]}),
    (COMPLETIONS, {"prompt": ["a", [1]]}), (COMPLETIONS, {"prompt": ["a"] * 2049}),
    messages({"role": "robot", "content": "x"}), messages({"role": "user", "content": []}),
    block("user", type="image", source={}), block("user", type="thinking", thinking="x"),
    block("user", type="text", text="x", cache_control={"type": "ephemeral", "ttl": "2h"}),
    block("user", type="text", text="x", citations=[{}]), block("user", type="tool_result"),
    block("user", type="tool_result", tool_use_id="c", content=[{"type": "image"}]),
    block("assistant", type="tool_use", id="c", name="f", input=[]),
    messages(HI, tools=[{"name": "f"}]), messages(HI, tools=[{**OWN_TOOL, "defer_loading": True}]),
    messages(HI, tools=[OWN_TOOL], tool_choice={"type": "auto", "name": "f"}),
    messages(HI, thinking={"type": None}),
    messages(HI, thinking={"type": "disabled", "display": "omitted"}),
    messages(HI, output_config={"effort": "most"}), messages(HI, system=[{"type": "image"}]),
    messages(HI, stop_sequences=["x"] * 17), messages(HI, stop_sequences=["x" * 257]),
    messages(HI, stop_sequences=[""]), messages(HI, max_tokens=-1),
    responses({"type": "item_reference", "id": "x"}), responses({"content": "x"}),
    responses({**HI, "type": {}}), responses({**HI, "type": ""}),
    responses(HI, top_logprobs=False), responses(HI, tools=[{**FLAT_TOOL, "defer_loading": {}}]),
    messages(HI, tools=[{**OWN_TOOL, "eager_input_streaming": 0}]),
    responses({"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}),
    responses({"type": "function_call", "call_id": "c", "name": "f"}),
    responses({"type": "function_call_output", "call_id": "c", "output": None}),
    responses({"type": "reasoning", "content": [{"type": "summary_text", "text": "x"}]}),
    responses(HI, tools=[TOOL]), responses(HI, tools=[{"type": "namespace", "name": "n n"}]),
    responses(HI, tools=[{"type": "custom", "name": "g", "format": {"type": "grammar"}}]),
    responses(HI, tools=[{**FLAT_TOOL, "defer_loading": True}]),
    responses(HI, tools=[FLAT_TOOL], tool_choice={"type": "function"}),
    responses(HI, text={"format": {"type": "xml"}}), responses(HI, reasoning={"effort": "most"}),
    responses(HI, truncation="auto"), responses(HI, include=[1]),
    (RESPONSES, {"input": []}),
    ("/v1/embeddings", {"input": "hi", "encoding_format": "hex"}),
    ("/v1/embeddings", {"input": "hi", "dimensions": 0}),
    ("/v1/sessions", {"prompt": ["a", "b"]}), ("/detokenize", {"tokens": [0.5]}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body"), RIGHT)
def test_what_is_described_is_answered(roomy: Live, path: str, body: object) -> None:
    assert accepts(path, body)
    answer = roomy.post(path, body)
    assert answer.status == 200, answer


@pytest.mark.parametrize(("path", "body"), WRONG)
def test_what_is_not_described_is_refused(roomy: Live, path: str, body: object) -> None:
    assert not accepts(path, body)
    answer = roomy.post(path, body)
    assert answer.status == 400, answer


@pytest.mark.parametrize("file", BODIES, ids=lambda file: file.stem)
def test_the_bodies_of_clients_are_described(file: Path) -> None:
    given: dict[str, Any] = json.loads(file.read_text("utf-8"))
    assert accepts(given["path"].partition("?")[0], given["body"])


def test_what_is_said_of_a_field_is_said_of_one_that_there_is() -> None:
    fields = {name for row in DESCRIBED.values() for name in row.table or ()}
    assert set(shared.EVERYWHERE) <= fields
    for row in DESCRIBED.values():
        of_family = [each.table or {} for each in DESCRIBED.values() if each.insides is row.insides]
        assert set(row.insides) <= {name for table in of_family for name in table}


def test_a_shape_has_one_name() -> None:
    parts = [shared.SHAPES, *(m.SHAPES for m in (chat_shapes, messages_shapes, responses_shapes))]
    assert sum(map(len, parts)) == len(SHAPES)
