"""OpenAI's batch file: what is a request, and the exact result lines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.errors import OctavoError, PromptTooLongError
from octavo.protocol.batch import BatchLineError, answered, failed, parse_body, parse_line
from octavo.protocol.bodies import BodyError
from octavo.protocol.chat import ChatRequest
from octavo.protocol.completions import CompletionRequest

CHAT_BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "ü"}]}
LINE: dict[str, Any] = {
    "custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": CHAT_BODY,
}  # fmt: skip


def text(**changes: object) -> bytes:
    return json.dumps({**LINE, **changes}, ensure_ascii=False).encode()


def test_the_url_says_which_body_it_is() -> None:
    chat = parse_body(parse_line(text()))
    assert isinstance(chat, ChatRequest)
    assert (chat.model, chat.messages) == ("m", ({"role": "user", "content": "ü"},))
    plain = parse_body(parse_line(text(url="/v1/completions", body={"prompt": "p"})))
    assert isinstance(plain, CompletionRequest)
    assert plain.prompts == ("p",)


@pytest.mark.parametrize(
    ("line", "code", "message", "custom_id"),
    [(b'{"a": ', "invalid_json", "not JSON: Expecting value at character 7", None),
     (b'{"a": NaN}', "invalid_json", "not JSON: NaN is no JSON number", None),
     (b'"\xff"', "invalid_json", "not UTF-8 at byte 1", None),
     (b"[]", "invalid_line", "expected a JSON object, found a list", None),
     (b"{}", "missing_custom_id", "custom_id: expected a string that is not empty", None),
     (text(custom_id=""), "missing_custom_id", "custom_id: expected a string that is", None),
     (text(custom_id=7), "missing_custom_id", "custom_id: expected a string that is", None),
     (text(bodi={}), "invalid_line", "unknown field 'bodi'; did you mean body?", "a"),
     (text(method="GET"), "invalid_method", 'method: expected "POST"', "a"),
     (text(url="/v1/embeddings"), "invalid_url",
      "url: expected /v1/chat/completions or /v1/completions", "a"),
     (text(url=None), "invalid_url", "url: expected ", "a"),
     (text(body="x"), "invalid_body", "body: expected an object, found a string", "a"),
     (b"[" * 100_000, "invalid_json", "not JSON: ", None),
     (b"9" * 5000, "invalid_json", "not JSON: ", None)],
)  # fmt: skip
def test_a_line_that_is_no_request_says_why(
    line: bytes, code: str, message: str, custom_id: str | None
) -> None:
    with pytest.raises(BatchLineError) as caught:
        parse_line(line)
    assert (caught.value.code, caught.value.custom_id) == (code, custom_id)
    assert str(caught.value).startswith(message)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_request_or_refused(line: bytes) -> None:
    with pytest.raises(BatchLineError):
        parse_line(line)


def test_a_stream_is_refused_by_name() -> None:
    with pytest.raises(BodyError, match="stream: a batch file has whole answers only") as caught:
        parse_body(parse_line(text(body={**CHAT_BODY, "stream": True})))
    assert caught.value.param == "stream"
    parse_body(parse_line(text(body={**CHAT_BODY, "stream": False})))


def test_equal_requests_have_equal_content_however_they_were_written() -> None:
    one = parse_line(text())
    body = dict(reversed(LINE["body"].items()))
    spaced = json.dumps(dict(reversed({**LINE, "body": body}.items())), indent=1).encode()
    assert parse_line(spaced).content() == one.content()
    for name, value in [
        ("custom_id", "b"),
        ("url", "/v1/completions"),
        ("body", {**CHAT_BODY, "n": 1}),
    ]:
        assert parse_line(text(**{name: value})).content() != one.content()


def test_result_lines() -> None:
    assert answered("9f", "a", {"x": 1}) == {
        "id": "batch_req_9f",
        "custom_id": "a",
        "response": {"status_code": 200, "request_id": "req_9f", "body": {"x": 1}},
        "error": None,
    }
    assert failed("9f", None, BatchLineError("invalid_json", "not JSON"), line=3) == {
        "id": "batch_req_9f",
        "custom_id": None,
        "response": None,
        "error": {"code": "invalid_json", "message": "line 3: not JSON"},
    }
    error = {
        "message": "n=0: too few", "type": "invalid_request_error", "param": "n", "code": None,
    }  # fmt: skip
    assert failed("9f", "a", BodyError("n=0: too few", "n"), line=4) == {
        "id": "batch_req_9f",
        "custom_id": "a",
        "response": {"status_code": 400, "request_id": "req_9f", "body": {"error": error}},
        "error": {"code": "invalid_request", "message": "line 4: n=0: too few"},
    }
    long = failed("9f", "a", PromptTooLongError("too long"), line=1)
    assert long["error"] == {"code": "context_length_exceeded", "message": "line 1: too long"}
    broken = failed("9f", "a", OctavoError("broke"), line=1)
    assert broken["response"]["status_code"] == 500
    assert broken["error"] == {"code": "server_error", "message": "line 1: broke"}
