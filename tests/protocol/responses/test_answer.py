"""What is written of an answer: items, and the events of a stream in their documented order."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from octavo.protocol.answer import AnswerReader
from octavo.protocol.common import ApiError
from octavo.protocol.reasoning import ReasoningFormat
from octavo.protocol.responses.answer import ResponsesAnswer
from octavo.protocol.responses.request import parse_response
from octavo.protocol.tools.formats import tool_format_of
from octavo.request import StreamChunk
from tests.protocol.outputs import Words, completion, output, token

BODY: dict[str, Any] = {
    "input": "hi",
    "tools": [
        {"type": "function", "name": "weather", "parameters": {"type": "object"}},
        {"type": "namespace", "name": "os", "tools": [{"type": "custom", "name": "run"}]},
    ],
}
THINK = ReasoningFormat("<think>", "</think>")
ANSWER = (
    "<think>hm</think>Let me see."
    '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>'
    '<tool_call>{"name": "os__run", "arguments": {"input": "ls\\n\\u00e9"}}</tool_call>'
)


def writer(
    body: dict[str, Any] = BODY, kept: list[dict[str, Any]] | None = None
) -> ResponsesAnswer:
    request = parse_response(body)
    ids = iter(("call_1", "call_2"))
    reader = AnswerReader(tool_format_of(None), THINK, request.told.tools, lambda: next(ids))
    keep = (lambda _: None) if kept is None else kept.append
    return ResponsesAnswer(
        request, id="resp_1", created=7, model="tiny", vocabulary=Words(), reader=reader,
        keep=keep,
    )  # fmt: skip


def streamed(
    answer: ResponsesAnswer, pieces: list[str], reason: Any = "stop"
) -> list[dict[str, Any]]:
    text = "".join(pieces)
    chunks = [StreamChunk(piece, ()) for piece in pieces[:-1]]
    chunks.append(StreamChunk(pieces[-1], (), finish_reason=reason))
    events = [*answer.begin(), *(e for chunk in chunks for e in answer.piece(0, chunk))]
    events += answer.end([output(completion(text, reason=reason))])
    for number, event in enumerate(events):
        assert isinstance(event.data, dict)
        assert event.name == event.data["type"]
        assert event.data["sequence_number"] == number
    return [event.data for event in events]  # type: ignore[misc]


def without_ids(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in item.items() if name != "id"} for item in items]


def test_a_text_has_the_documented_events() -> None:
    events = streamed(writer(), ["Hel", "lo"])
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    added, *inner, done, last = events[2:]
    id = added["item"]["id"]
    assert added["item"]["content"] == []
    assert all(e["item_id"] == id and e["output_index"] == e["content_index"] == 0 for e in inner)
    assert [e["delta"] for e in inner if "delta" in e] == ["Hel", "lo"]
    assert inner[-2]["text"] == inner[-1]["part"]["text"] == "Hello"
    assert last["response"]["output"] == [done["item"]]
    assert last["response"]["status"] == done["item"]["status"] == "completed"
    assert last["response"]["usage"]["total_tokens"] == 13
    assert events[0]["response"]["output"] == []
    assert events[0]["response"]["status"] == "in_progress"


@given(st.lists(st.integers(0, len(ANSWER)), max_size=8))
def test_however_it_is_cut_the_stream_is_the_whole_answer(cuts: list[int]) -> None:
    at = [0, *sorted(cuts), len(ANSWER)]
    events = streamed(writer(), [ANSWER[a:b] for a, b in pairwise(at)])
    items = events[-1]["response"]["output"]
    whole: Any = writer().whole([output(completion(ANSWER))])
    assert without_ids(items) == without_ids(whole["output"])
    assert [item["type"] for item in items] == [
        "reasoning", "message", "function_call", "custom_tool_call",
    ]  # fmt: skip
    _, _, function, custom = items
    assert (function["name"], function["call_id"]) == ("weather", "call_1")
    assert function["arguments"] == '{"city": "Oslo"}'
    assert (custom["name"], custom["namespace"], custom["input"]) == ("run", "os", "ls\né")
    for index, item in enumerate(items):
        own = [event for event in events if event.get("output_index") == index]
        assert own[0]["type"] == "response.output_item.added"
        assert own[-1] == {
            "type": "response.output_item.done", "item": item, "output_index": index,
            "sequence_number": own[-1]["sequence_number"],
        }  # fmt: skip
        assert {event["item_id"] for event in own[1:-1]} == {item["id"]}
        told = "".join(event.get("delta", "") for event in own)
        assert told == _said(item)


def test_an_answer_that_a_limit_broke_off_is_incomplete() -> None:
    cut = '<tool_call>{"name": "weather", "arguments": {"ci'
    events = streamed(writer(), [cut], "length")
    response = events[-1]["response"]
    assert events[-1]["type"] == "response.incomplete"
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    (item,) = response["output"]
    assert (item["status"], item["arguments"]) == ("incomplete", '{"ci')
    whole: Any = writer().whole([output(completion(cut, reason="length"))])
    assert without_ids(whole["output"]) == without_ids(response["output"])
    empty = streamed(writer(), [""], "length")
    assert empty[-1]["response"]["output"] == []


def test_a_failure_tells_the_whole_response() -> None:
    kept: list[dict[str, Any]] = []
    answer = writer(kept=kept)
    answer.begin()
    answer.piece(0, StreamChunk("Hel", ()))
    event = answer.failed(ApiError(500, "it broke"))
    data: Any = event.data
    assert event.name == data["type"] == "response.failed"
    assert data["response"]["error"] == {"code": "server_error", "message": "it broke"}
    (item,) = data["response"]["output"]
    assert (item["status"], item["content"][0]["text"]) == ("incomplete", "Hel")
    assert data["response"]["status"] == "failed"
    assert kept == [data["response"]]


def test_a_failure_is_told_in_bounds() -> None:
    response: Any = writer().failed(ApiError(500, "it broke" * 1000)).data
    assert response["response"]["error"]["message"] == "it broke" * 125 + "…"


def test_what_is_kept_is_what_is_told() -> None:
    kept: list[dict[str, Any]] = []
    whole = writer(kept=kept)
    events = streamed(whole, ["Hi"])
    whole.failed(ApiError(408, "its reader took nothing"))  # the answer is there all the same
    assert kept == [events[-1]["response"]]
    answer = writer(kept=kept)
    answer.piece(0, StreamChunk("Hel", ()))
    _, response = answer.cancelled()
    assert kept[1:] == [response]
    assert response["status"] == "cancelled"


def test_log_probabilities_stand_beside_the_text() -> None:
    told = [token(0, -0.5, (1, -1.0)), token(1, -0.25)]
    answer = writer({"input": "hi", "top_logprobs": 1})
    answer.begin()
    first = answer.piece(0, StreamChunk("Hi", (0,), logprobs=(told[0],)))
    rest = answer.piece(0, StreamChunk(" there", (1,), logprobs=(told[1],), finish_reason="stop"))
    deltas: Any = [e.data for e in (*first, *rest) if e.name == "response.output_text.delta"]
    assert [[each["token"] for each in delta["logprobs"]] for delta in deltas] == [
        ["Hi"], [" there"],
    ]  # fmt: skip
    whole: Any = writer({"input": "hi", "top_logprobs": 1}).whole(
        [output(completion("Hi there", *told, wanted=True))]
    )
    expected = [each for delta in deltas for each in delta["logprobs"]]
    assert whole["output"][0]["content"][0]["logprobs"] == expected
    assert expected[0]["top_logprobs"][0]["token"] == " there"


def test_reasoning_is_counted_in_tokens() -> None:
    class Spelled(Words):
        PIECES = (b"<think>", b"hm", b"</thi", b"nk>ok", b"!")

    for ids, text, expected in (
        ((0, 1, 2, 3, 4), "<think>hm</think>ok!", 2),
        ((0, 1), "<think>hm", 2),
        ((4, 4), "!!", 0),
    ):
        request = parse_response({"input": "hi"})
        reader = AnswerReader(None, THINK, None, str)
        answer = ResponsesAnswer(
            request, id="r", created=7, model="m", vocabulary=Spelled(), reader=reader,
            keep=lambda _: None,
        )  # fmt: skip
        done = completion(text, *(token(i, 0.0) for i in ids))
        whole: Any = answer.whole([output(done)])
        assert whole["usage"]["output_tokens_details"] == {"reasoning_tokens": expected}


def _said(item: dict[str, Any]) -> str:
    if "content" in item:
        text: str = item["content"][0]["text"]
        return text
    return str(item.get("arguments", item.get("input")))
