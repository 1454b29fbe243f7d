"""Answers in Harmony's channels, by a whole server: each API has a place for each channel, whole
and in pieces, and takes back what it gave."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from octavo.grammar import GrammarSpec
from octavo.protocol.tools.grammar import literal
from octavo.protocol.tools.harmony.dialect import Harmony
from octavo.protocol.tools.harmony.header import (
    CALL,
    CHANNEL,
    CONSTRAIN,
    END,
    MESSAGE,
    RETURN,
    START,
)
from tests.cli.tiny_model import write_tiny_model
from tests.protocol.tools.harmony.shape import TEMPLATE
from tests.server.live import Live
from tests.server.turns import SESSIONS
from tests.weights.gguf_bytes import U32, entry, u32

SPECIALS = (START, CHANNEL, MESSAGE, CONSTRAIN, END, CALL, RETURN)
PATHS = ("/v1/chat/completions", "/v1/responses", "/v1/messages")
CITY = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"],
        "additionalProperties": False}  # fmt: skip
WEATHER = {"name": "weather", "parameters": CITY}
TOOLS = {
    PATHS[0]: [{"type": "function", "function": WEATHER}],
    PATHS[1]: [{"type": "function", **WEATHER}],
    PATHS[2]: [{"name": "weather", "input_schema": CITY}],
}
HI = {"role": "user", "content": "hi"}
NEXT = f"{END}{START}assistant"
THOUGHT = f"{CHANNEL}analysis{MESSAGE}I think.{NEXT}"
SAID = f"{CHANNEL}final{MESSAGE}So it is."
ASKED = f'{CHANNEL}commentary to=functions.weather {CONSTRAIN}json{MESSAGE}{{"city": "Rome"}}'
Told = tuple[str | None, str, list[tuple[str, Any]], str]  # reasoning, text, calls, how it ended
Script = Callable[[str], None]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    yield from _serving(tmp_path_factory.mktemp("channels"))


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    yield from _serving(tmp_path_factory.mktemp("inline"), reasoning="inline")


def _serving(folder: Path, **options: Any) -> Iterator[Live]:
    context = entry("llama.context_length", U32, u32(4096))
    path = write_tiny_model(
        folder / "tiny.gguf", template=TEMPLATE, more=[context], specials=SPECIALS
    )
    with Live(path, **options) as found:
        yield found


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """What the model writes next, tags by their ids: a grammar of that text alone."""

    def write(text: str) -> None:
        def grammar(own: Harmony, asked: object, tools: object, control: Any) -> GrammarSpec:
            return GrammarSpec("lark", f"start: {literal(text, control)}")

        monkeypatch.setattr(Harmony, "grammar", grammar)

    return write


def body(path: str, *, tools: bool = False, **more: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {"input": "hi"} if path == PATHS[1] else {"messages": [HI]}
    if path == PATHS[2]:
        asked["max_tokens"] = 300
    return {**asked, **({"tools": TOOLS[path]} if tools else {}), **more}


def told(path: str, answer: Any) -> Told:
    if path == PATHS[0]:
        (choice,) = answer["choices"]
        message = choice["message"]
        calls = [
            (each["function"]["name"], json.loads(each["function"]["arguments"]))
            for each in message.get("tool_calls", ())
        ]
        reasoning = message.get("reasoning_content")
        return reasoning, message["content"] or "", calls, choice["finish_reason"]
    if path == PATHS[1]:
        items = answer["output"]
        reasoning = "".join(
            part["text"]
            for each in items
            if each["type"] == "reasoning"
            for part in each["content"]
        )
        calls = [
            (each["name"], json.loads(each["arguments"]))
            for each in items
            if each["type"] == "function_call"
        ]
        text = "".join(
            part["text"] for each in items if each["type"] == "message" for part in each["content"]
        )
        return reasoning or None, text, calls, answer["status"]
    blocks = answer["content"]
    reasoning = "".join(each["thinking"] for each in blocks if each["type"] == "thinking")
    calls = [(each["name"], each["input"]) for each in blocks if each["type"] == "tool_use"]
    text = "".join(each["text"] for each in blocks if each["type"] == "text")
    return reasoning or None, text, calls, answer["stop_reason"]


ENDS = {PATHS[0]: ("stop", "tool_calls"), PATHS[1]: ("completed",) * 2,
        PATHS[2]: ("end_turn", "tool_use")}  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_each_channel_has_its_place(server: Live, script: Script, path: str) -> None:
    thinking: Any = {"thinking": {"type": "adaptive"}} if path == PATHS[2] else {}
    stops, calls = ENDS[path]
    script(THOUGHT + SAID)
    found = server.post(path, body(path, **thinking)).json
    assert told(path, found) == ("I think.", "So it is.", [], stops)
    script(THOUGHT + ASKED)
    found = server.post(path, body(path, tools=True, **thinking))
    rome = [("weather", {"city": "Rome"})]
    assert told(path, found.json) == ("I think.", "", rome, calls)
    assert found.headers["x-octavo-tools"] == "harmony"
    script(f"{THOUGHT}{CHANNEL}commentary{MESSAGE}I look.{NEXT}{ASKED}")
    found = server.post(path, body(path, tools=True, **thinking))
    assert told(path, found.json) == ("I think.", "I look.", rome, calls)


def test_pieces_are_the_same(server: Live, script: Script) -> None:
    script(THOUGHT + ASKED)
    chunks = server.post(PATHS[0], body(PATHS[0], tools=True, stream=True)).events[:-1]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    assert "".join(each.get("reasoning_content") or "" for each in deltas) == "I think."
    assert "".join(each.get("content") or "" for each in deltas) == ""
    calls = [call["function"] for each in deltas for call in each.get("tool_calls", ())]
    assert calls[0]["name"] == "weather"
    assert json.loads("".join(each["arguments"] for each in calls)) == {"city": "Rome"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    script(THOUGHT + SAID)
    thinking = {"type": "adaptive"}
    events = server.post(PATHS[2], body(PATHS[2], stream=True, thinking=thinking)).events
    deltas = [each["delta"] for each in events if each["type"] == "content_block_delta"]
    assert "".join(each.get("thinking", "") for each in deltas) == "I think."
    assert "".join(each.get("text", "") for each in deltas) == "So it is."
    events = server.post(PATHS[1], body(PATHS[1], stream=True)).events
    texts = [each["delta"] for each in events if each["type"] == "response.output_text.delta"]
    assert "".join(texts) == "So it is."
    assert told(PATHS[1], events[-1]["response"])[:2] == ("I think.", "So it is.")


@pytest.mark.parametrize("limit", range(1, 30))
def test_a_limit_cuts_no_header_in_two(server: Live, script: Script, limit: int) -> None:
    script(THOUGHT + SAID)
    found = server.post(PATHS[0], body(PATHS[0], max_tokens=limit)).json
    reasoning, text, _, end = told(PATHS[0], found)
    assert end == "length"
    head = 1 + len("analysis") + 1
    assert (reasoning or "") == "I think."[: max(0, limit - head)]
    assert text == ""
    usage = found["usage"]["completion_tokens_details"]
    assert usage["reasoning_tokens"] == (min(limit, head + 8) if limit > head else 0)


def test_inline_leaves_reasoning_in_the_text(inline: Live, script: Script) -> None:
    script(THOUGHT + SAID)
    found = told(PATHS[0], inline.post(PATHS[0], body(PATHS[0])).json)
    assert found == (None, "<think>\nI think.\n</think>\n\nSo it is.", [], "stop")
    again = [HI, {"role": "assistant", "content": found[1]}, HI]
    asked = {"messages": again}
    prompt = inline.post("/apply-template", asked).json["prompt"]
    assert f"{CHANNEL}final{MESSAGE}So it is.{END}" in prompt


def test_an_answer_is_taken_back(server: Live, script: Script) -> None:
    """With its call, reasoning and all; the template writes them where it has a place."""
    script(THOUGHT + ASKED)
    message = server.post(PATHS[0], body(PATHS[0], tools=True)).json["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "sun"}
    asked = body(PATHS[0], tools=True, messages=[HI, message, result])
    prompt = server.post("/apply-template", asked).json["prompt"]
    assert prompt.endswith(
        f"{START}assistant{CHANNEL}analysis{MESSAGE}I think.{END}"
        f'{START}assistant to=functions.weather{CHANNEL}commentary json{MESSAGE}{{"city": "Rome"}}'
        f'{CALL}{START}functions.weather to=assistant{CHANNEL}commentary{MESSAGE}"sun"{END}'
        f"{START}assistant"
    )
    script(THOUGHT + SAID)
    found = server.post(PATHS[0], asked).json
    assert told(PATHS[0], found)[:2] == ("I think.", "So it is.")


def test_responses_go_on_from_an_earlier_one(server: Live, script: Script) -> None:
    """The template leaves earlier reasoning out: the conversation is rendered anew."""
    script(THOUGHT + SAID)
    first = server.post(PATHS[1], body(PATHS[1])).json
    second = server.post(PATHS[1], body(PATHS[1], previous_response_id=first["id"])).json
    assert told(PATHS[1], second)[:2] == ("I think.", "So it is.")
    said = {"role": "assistant", "content": "So it is."}
    prompt = server.post("/tokenize", {"messages": [HI, said, HI]}).json
    assert second["usage"]["input_tokens"] == prompt["count"]
    script(THOUGHT + ASKED)
    first = server.post(PATHS[1], body(PATHS[1], tools=True)).json
    result = {"type": "function_call_output", "call_id": first["output"][-1]["call_id"],
              "output": "sun"}  # fmt: skip
    script(THOUGHT + SAID)
    asked = body(PATHS[1], tools=True, previous_response_id=first["id"], input=[result])
    assert told(PATHS[1], server.post(PATHS[1], asked).json)[:2] == ("I think.", "So it is.")


def test_a_session_cannot_keep_what_the_template_leaves_out(server: Live) -> None:
    refused = server.post(SESSIONS, {"messages": [HI]})
    assert (refused.status, "rewrites earlier turns" in refused.error) == (400, True)


@pytest.mark.parametrize("path", PATHS)
def test_what_must_be_holds_behind_reasoning(server: Live, path: str) -> None:
    """No script: whatever the model draws, reasoning comes first and is free."""
    bias = {} if path != PATHS[0] else {"logit_bias": {str(256 + SPECIALS.index(END)): 4}}
    choice = {"type": "any"} if path == PATHS[2] else "required"
    limit = "max_output_tokens" if path == PATHS[1] else "max_tokens"
    ended = []
    for seed in range(4):
        asked = body(path, tools=True, seed=seed, tool_choice=choice, **bias)
        _, text, calls, end = told(path, server.post(path, {**asked, limit: 2000}).json)
        if end in ENDS[path]:
            ((name, arguments),) = calls
            assert (name, text) == ("weather", "")
            assert arguments["city"] in ("Rome", "Oslo")
        ended.append(end)
    assert set(ended) & set(ENDS[path])


def test_a_schema_holds_the_final_message(server: Live) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": CITY}}
    asked = body(PATHS[0], response_format=schema, max_tokens=2000,
                 logit_bias={str(256 + SPECIALS.index(END)): 4})  # fmt: skip
    reasoned = set()
    for seed in range(8):
        reasoning, text, _, end = told(
            PATHS[0], server.post(PATHS[0], {**asked, "seed": seed}).json
        )
        if end == "stop":
            reasoned.add(reasoning is not None)
            assert json.loads(text)["city"] in ("Rome", "Oslo")
    assert reasoned


def test_no_effort_is_noted(server: Live, script: Script) -> None:
    script(SAID)
    found = server.post(PATHS[0], body(PATHS[0], reasoning_effort="none"))
    assert found.headers["x-octavo-ignored"] == "reasoning_effort"
    found = server.post(PATHS[0], body(PATHS[0], reasoning_effort="high"))
    assert "x-octavo-ignored" not in found.headers
