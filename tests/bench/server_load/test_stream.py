"""Bytes to a reply: wherever they are cut, and whatever a server sends in their place."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.bench.server_load.stream import (
    AskError,
    Received,
    Reply,
    Usage,
    error_text,
    events,
    read_reply,
    stream_error,
)

DONE = "data: [DONE]\n\n"


def piece(text: str) -> str:
    return f"data: {json.dumps({'choices': [{'index': 0, 'text': text}]})}\n\n"


def delta(**said: object) -> str:
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': said}]})}\n\n"


def usage(prompt: object = 7, answer: object = 3, **more: object) -> str:
    told = {"prompt_tokens": prompt, "completion_tokens": answer, **more}
    return f"data: {json.dumps({'choices': [], 'usage': told})}\n\n"


def reply(*sent: str) -> Reply:
    """Each came a second after the one before; the request was sent at 10."""
    return read_reply(Received(10, [(11 + i, each.encode()) for i, each in enumerate(sent)]))


def why(*sent: str) -> str:
    with pytest.raises(AskError) as caught:
        reply(*sent)
    return str(caught.value)


def test_times_of_a_completion() -> None:
    found = reply(piece("a"), piece(""), piece("b"), piece("c"), usage(7, 5), DONE)
    assert found == Reply(10, (11, 13, 14), Usage(7, 5, None))
    assert (found.first, found.whole, found.gaps) == (1, 4, [2, 1])
    assert found.each == 3 / 4  # five tokens: four after the first, in three seconds


def test_times_of_a_chat_begin_with_its_text_or_its_reasoning() -> None:
    role = delta(role="assistant", content="")
    found = reply(role, delta(reasoning_content="hm"), delta(content="yes"), usage(), DONE)
    assert list(found.texts) == [12, 13]
    found = reply(role, delta(content=None), delta(content="x"), usage(), DONE)
    assert list(found.texts) == [13]


def test_an_answer_of_one_token_has_no_time_a_token() -> None:
    found = reply(piece("a"), usage(7, 1), DONE)
    assert (found.each, found.gaps) == (None, [])


def test_usage_may_come_with_the_last_text_and_tell_what_was_cached() -> None:
    last = {"choices": [{"text": "b"}], "usage": {"prompt_tokens": 9, "completion_tokens": 2,
            "prompt_tokens_details": {"cached_tokens": 8}}}  # fmt: skip
    found = reply(piece("a"), f"data: {json.dumps(last)}\n\n", DONE)
    assert found == Reply(10, (11, 12), Usage(9, 2, 8))


@pytest.mark.parametrize("details", [None, {}, {"cached_tokens": None}, {"cached_tokens": 8}, 3])
def test_a_server_need_not_tell_what_was_cached(details: object) -> None:
    found = reply(piece("a"), usage(prompt_tokens_details=details), DONE)
    assert found.usage.cached is None


STREAM = (": ping\r\n\r\n" + piece("a\u00e9\u20ac").replace("\n", "\r\n") + "event: x\n"
          + piece("b") + "\n\ndata:{}\n\n" + usage() + DONE).encode()  # fmt: skip


@given(st.lists(st.integers(0, len(STREAM))))
def test_where_the_bytes_are_cut_changes_no_event(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    reads = [(float(b), STREAM[a:b]) for a, b in pairwise(edges)]  # as late as it is long
    whole = [data for _, data in events([(0, STREAM)])]
    found = list(events(reads))
    assert [data for _, data in found] == whole
    # Each came with the read that held its last byte.
    ends = [STREAM.index(each) + len(each) for each in whole]
    for (at, _), end in zip(found, ends, strict=True):
        assert at > end
        assert not any(end + 4 <= edge < at for edge in edges)


def test_an_event_of_several_lines_is_one() -> None:
    assert list(events([(1, b"data: a\ndata: b\n\ndata: cut")])) == [(1, b"a\nb")]


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        ([], "expected a stream of events, it sent nothing"),
        (["<html>"], "expected a stream of events, it sent '<html>'"),
        (['{"choices": [{"text": "whole"}]}'], "expected a stream of events, it sent '{"),
        (["data: {\n\n"], "expected events of JSON objects: it sent '{'"),
        (["data: [3]\n\n"], "expected events of JSON objects: it sent '[3]'"),
        (["data: " + "[" * 100_000 + "\n\n"], "expected events of JSON objects: it sent '[[["),
        ([piece("a"), DONE], "its stream had no usage, so no token is counted: it has to know "
                             "stream_options.include_usage"),
        ([piece("a")], "its stream ended without usage and [DONE]: the answer is cut off"),
        ([usage(), DONE], "its answer had no text"),
        ([piece("a"), usage(True), DONE], "its usage counts no tokens: {"),
        ([piece("a"), usage(7, -1), DONE], "its usage counts no tokens: {"),
        ([piece("a"), usage(7, 10**400), DONE], "its usage counts no tokens: {"),
        ([piece("a"), 'data: {"usage": 3}\n\n'], "its usage counts no tokens: 3"),
        ([piece("a"), 'data: {"error": {"message": "no room", "code": 1}}\n\n'],
         "its stream ended with an error: no room"),
        (['data: {"choices": 3, "usage": null}\n\ndata: {"choices": [null]}\n\n', DONE],
         "its stream had no usage"),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_told(sent: list[str], complaint: str) -> None:
    assert why(*sent).startswith(complaint)


def test_what_a_server_sends_is_shown_in_a_line_of_its_own_length() -> None:
    assert len(why("x\n" * 1000)) < 250


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": {"message": "too long", "type": "x"}}, "too long"),
        ({"error": "no model"}, "no model"),
        ({"message": "not here", "object": "error"}, "not here"),
        ({"detail": "Not Found"}, "Not Found"),
        ({"detail": [{"loc": ["body"]}]}, '[{"loc": ["body"]}]'),
        ([1], "[1]"),
        ({"error": {"code": 3}}, '{"code": 3}'),
    ],
)
def test_errors_of_several_shapes(body: object, said: str) -> None:
    assert error_text(body) == said


def test_an_error_in_a_stream_that_broke_off_is_found() -> None:
    error = b'data: {"error": {"message": "no room"}}\n\n'
    assert stream_error([(1, piece("a").encode()), (2, b"data: {\n\n"), (3, error)]) == (
        "its stream ended with an error: no room"
    )
    assert stream_error([(1, piece("a").encode())]) is None
