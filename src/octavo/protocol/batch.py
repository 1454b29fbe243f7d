"""OpenAI's batch file: a request a line in, a result a line out.

A line that holds no request (no JSON, no custom_id, …) has a result with `error` and no `response`.
A request that is refused, or fails, has the `response` that the server would give it, with its
status and OpenAI's error body, and `error` too, so that whoever looks at either sees it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NoReturn

from octavo.errors import OctavoError, UsageError, kind_of, unknown_option
from octavo.protocol.bodies import BodyError
from octavo.protocol.chat import ChatRequest, parse_chat
from octavo.protocol.common import error_body, error_code, status_of
from octavo.protocol.completions import CompletionRequest, parse_completion

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
_FIELDS = ("custom_id", "method", "url", "body")


class BatchLineError(UsageError):
    """A line that is no request; `code` is for programs."""

    def __init__(self, code: str, message: str, custom_id: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.custom_id = custom_id


@dataclass(frozen=True, slots=True)
class BatchLine:
    custom_id: str
    url: str
    body: dict[str, object]

    def content(self) -> bytes:
        """Return bytes that are the same for the same request, however its JSON was written."""
        return json.dumps([self.custom_id, self.url, self.body], sort_keys=True).encode()


def parse_line(text: bytes) -> BatchLine:
    """Read one line of a batch file. Raises BatchLineError."""
    line = _read_json(text)
    if not isinstance(line, dict):
        raise BatchLineError("invalid_line", f"expected a JSON object, found {kind_of(line)}")
    custom_id = line.get("custom_id")
    if not isinstance(custom_id, str) or not custom_id:
        raise BatchLineError("missing_custom_id", "custom_id: expected a string that is not empty")
    for name in line:
        if name not in _FIELDS:
            error = unknown_option("field", name, _FIELDS)
            raise BatchLineError("invalid_line", str(error), custom_id)
    method, url, body = line.get("method"), line.get("url"), line.get("body")
    if method != "POST":
        raise BatchLineError("invalid_method", 'method: expected "POST"', custom_id)
    if not isinstance(url, str) or url not in (CHAT, COMPLETIONS):
        raise BatchLineError("invalid_url", f"url: expected {CHAT} or {COMPLETIONS}", custom_id)
    if not isinstance(body, dict):
        raise BatchLineError(
            "invalid_body", f"body: expected an object, found {kind_of(body)}", custom_id
        )
    return BatchLine(custom_id, url, body)


def parse_body(line: BatchLine) -> ChatRequest | CompletionRequest:
    """Read the request in the body of a line. Raises BodyError."""
    request = parse_chat(line.body) if line.url == CHAT else parse_completion(line.body)
    if request.stream.wanted:
        raise BodyError("stream: a batch file has whole answers only: leave it out", "stream")
    if request.session is not None:
        raise BodyError("session: only a server has them: leave it out", "session")
    return request


def answered(line_id: str, custom_id: str, body: dict[str, object]) -> dict[str, object]:
    """The result line of a request that was answered; `line_id` is unique in the file."""
    return _result(line_id, custom_id, _response(line_id, 200, body), None)


def failed(
    line_id: str, custom_id: str | None, error: OctavoError, *, line: int
) -> dict[str, object]:
    """The result line of anything else; `line` is the number that the message begins with."""
    message = f"line {line}: {error}"
    if isinstance(error, BatchLineError):
        return _result(line_id, custom_id, None, {"code": error.code, "message": message})
    code = error_code(error) or ("invalid_request" if status_of(error) < 500 else "server_error")
    response = _response(line_id, status_of(error), error_body(error))
    return _result(line_id, custom_id, response, {"code": code, "message": message})


def _result(
    line_id: str,
    custom_id: str | None,
    response: dict[str, object] | None,
    error: dict[str, object] | None,
) -> dict[str, object]:
    return {
        "id": f"batch_req_{line_id}",
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }


def _response(line_id: str, status: int, body: dict[str, object]) -> dict[str, object]:
    return {"status_code": status, "request_id": f"req_{line_id}", "body": body}


def _read_json(text: bytes) -> object:
    try:
        return json.loads(text.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise BatchLineError("invalid_json", f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        why = f"not JSON: {error.msg} at character {error.pos + 1}"
        raise BatchLineError("invalid_json", why) from None
    except (ValueError, RecursionError) as error:  # a number too long, brackets too deep
        raise BatchLineError("invalid_json", f"not JSON: {error}") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
