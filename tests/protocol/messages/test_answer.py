"""Answers of /v1/messages: blocks, whole and as events, of what models might have written."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.protocol.answer import AnswerReader, plain_reader
from octavo.protocol.messages.answer import MessageAnswer
from octavo.protocol.reasoning import ReasoningFormat
from octavo.protocol.streams import Event
from octavo.records import Pin
from octavo.request import Completion, RequestOutput, StreamChunk
from tests.protocol.outputs import Words, completion, output
from tests.protocol.tools.calls import reader

CALL = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": [2]}}</tool_call>'
THINK = ReasoningFormat("<think>", "</think>")
FIELDS = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "input_json_delta": "partial_json",
    "signature_delta": "signature",
}


class Characters(Words):
    """Token ids are those of characters."""

    def token_bytes(self, token_id: int) -> bytes:
        return chr(token_id).encode()


def hermes() -> AnswerReader:
    return reader("hermes", reasoning=THINK)


def writer(new_reader: Callable[[], AnswerReader] = hermes, **more: Any) -> MessageAnswer:
    asked = {"max_tokens": 9, "num_tokens": 9, **more}
    return MessageAnswer(
        id="msg_1", model="m", new_reader=new_reader, vocabulary=Characters(), **asked
    )


def whole(text: str, **more: Any) -> list[Any]:
    content: Any = writer(**more).whole([output(completion(text))])["content"]
    return list(content)


def streamed(pieces: Sequence[str], **more: Any) -> list[Event]:
    writes = writer(**more)
    events = [*writes.begin()]
    for piece in pieces:
        events += writes.piece(0, StreamChunk(piece, ()))
    return [*events, *writes.end([output(completion("".join(pieces)))])]


def put_together(events: Sequence[Event]) -> dict[str, Any]:
    """The message, as a client of the API makes it of its events; each has its place."""
    assert all(event.name == event.data["type"] for event in plain(events))
    start, *rest, ending, last = (event.data for event in plain(events))
    assert (start["type"], last) == ("message_start", {"type": "message_stop"})
    message = start["message"]
    arguments: dict[int, str] = {}
    current: int | None = None
    for data in rest:
        index = data["index"]
        if data["type"] == "content_block_start":
            assert (current, index) == (None, len(message["content"]))
            current = index
            message["content"].append(data["content_block"])
            continue
        assert index == current
        if data["type"] == "content_block_stop":
            current = None
            continue
        assert data["type"] == "content_block_delta"
        field = FIELDS[data["delta"]["type"]]
        more = data["delta"][field]
        assert more
        if field == "partial_json":
            arguments[index] = arguments.get(index, "") + more
        else:
            message["content"][index][field] += more
    assert current is None
    for index, text in arguments.items():
        message["content"][index]["input"] = json.loads(text)
    return {**message, **ending["delta"], "usage": {**message["usage"], **ending["usage"]}}


def plain(events: Sequence[Event]) -> list[Any]:
    return [Event(json.loads(json.dumps(event.data)), event.name) for event in events]


def test_a_plain_answer_is_one_block_of_text() -> None:
    assert writer(plain_reader).whole([output(completion("Hi"))]) == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "Hi"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 1,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 8,
            "output_tokens": 4,
            "output_tokens_details": {"thinking_tokens": 0},
        },
    }


def test_thinking_text_and_calls_are_blocks_in_their_order() -> None:
    call = {"type": "tool_use", "name": "add", "input": {"a": 1, "b": [2]}}
    assert whole(f"<think>\nwell\n</think>\n\nI add.\n{CALL}\n{CALL}") == [
        {"type": "thinking", "thinking": "well", "signature": "octavo"},
        {"type": "text", "text": "I add."},
        {**call, "id": "id1"},
        {**call, "id": "id2"},
    ]


def test_a_call_without_arguments_has_an_empty_input() -> None:
    (block,) = whole('<tool_call>{"name": "get_time"}</tool_call>')
    assert (block["name"], block["input"]) == ("get_time", {})


def test_thinking_that_is_not_wanted_is_left_out() -> None:
    said = "<think>well</think>Hi"
    assert whole(said, shows_thinking=False) == [{"type": "text", "text": "Hi"}]
    message = put_together(streamed([said], shows_thinking=False))
    assert message["content"] == [{"type": "text", "text": "Hi"}]


def test_tokens_of_thinking_are_told_shown_or_not() -> None:
    said = "<think>well</think>Hi"
    made = replace(completion(said), token_ids=tuple(map(ord, said)))
    for shown in (True, False):
        usage: Any = writer(shows_thinking=shown).whole([output(made)])["usage"]
        assert usage["output_tokens_details"] == {"thinking_tokens": len("<think>well")}


def test_an_empty_answer_has_no_blocks() -> None:
    assert whole("") == []
    names = [event.name for event in streamed([""])]
    assert names == ["message_start", "message_delta", "message_stop"]


def test_the_first_event_has_the_whole_prompt_and_the_last_what_the_cache_had() -> None:
    first, *_, delta, _ = plain(streamed(["Hi"]))
    message = first.data["message"]
    assert (message["content"], message["stop_reason"]) == ([], None)
    assert message["usage"] == {
        "input_tokens": 9,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 0,
    }
    assert delta.data["usage"]["cache_read_input_tokens"] == 8


def ending(made: Completion) -> tuple[object, object]:
    found = writer().whole([output(made)])
    return found["stop_reason"], found["stop_sequence"]


def of_length(text: str, count: int) -> Completion:
    return replace(completion(text, reason="length"), token_ids=tuple(range(count)))


def test_why_an_answer_ended() -> None:
    assert ending(completion("x")) == ("end_turn", None)
    assert ending(replace(completion("x"), stop="END")) == ("stop_sequence", "END")
    assert ending(replace(completion("x"), stop=7)) == ("end_turn", None)
    assert ending(completion(CALL)) == ("tool_use", None)
    assert ending(completion(CALL[:50])) == ("end_turn", None)  # broken off inside its arguments
    assert ending(replace(completion(CALL), stop="END")) == ("stop_sequence", "END")
    assert ending(of_length("x", 9)) == ("max_tokens", None)
    assert ending(of_length("x", 5)) == ("model_context_window_exceeded", None)
    assert ending(completion("x", reason="deadline")) == ("max_tokens", None)


def test_a_call_that_a_limit_broke_off_has_what_is_whole_of_its_input() -> None:
    made = of_length(CALL.partition("]")[0], 9)
    message: Any = writer().whole([output(made)])
    assert message["stop_reason"] == "max_tokens"
    assert message["content"][0]["input"] == {"a": 1, "b": []}


@pytest.mark.parametrize(
    ("cached", "kept", "parts"),
    [(0, 0, (100, 0, 0)), (64, 0, (36, 64, 0)), (0, 96, (4, 0, 96)), (64, 96, (4, 64, 32)),
     (99, 96, (1, 99, 0))],
)  # fmt: skip
def test_the_parts_of_the_input_are_the_prompt(
    cached: int, kept: int, parts: tuple[int, int, int]
) -> None:
    made: RequestOutput = output(completion("x"), usage=(100, 4, cached))
    writes = writer(num_tokens=100)
    writes.pin = Pin(1, kept)
    usage: Any = writes.whole([made])["usage"]
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    assert tuple(usage[name] for name in names) == parts


WRITTEN = [
    "Hi there",
    " \n",
    f"<think>a</think>{CALL}",
    f"<think>\na b\n</think>\n\nText {CALL} more {CALL}",
    '<tool_call>{"name": "get_time"}</tool_call>',
    '<tool_call>{"name": "nobody"}</tool_call>',
    "<think>never closed",
]


@given(st.sampled_from(WRITTEN), st.lists(st.integers(0, 80), max_size=12))
def test_pieces_make_the_whole_message(text: str, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]
    assert put_together(streamed(pieces)) == writer().whole([output(completion(text))])
