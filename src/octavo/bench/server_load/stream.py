"""The bytes of one streamed answer become a Reply: when its text came, and what was counted.

Comes in: what was read of the body and when, piece by piece. It is parsed when a load is over: 300
events take milliseconds, in which the pieces of other streams would wait and be noted late. Knows
the events of /v1/completions and /v1/chat/completions; knows no HTTP and no clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, TypeGuard

from octavo.errors import OctavoError
from octavo.values import is_whole

Reads = Sequence[tuple[float, bytes]]  # when they came, in seconds of one clock, and what
_TEXTS = ("content", "text", "reasoning_content", "reasoning")
_SHOWN = 120  # characters of what is not understood
_MOST_TOKENS = 2**31 - 1  # of one request; of a number without bounds Python makes no float


class AskError(OctavoError):
    """A request that failed; the message says why."""


class Received(NamedTuple):
    """A body as it came."""

    began: float  # when the request was sent
    reads: Reads


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the server counts them."""

    prompt: int
    answer: int
    cached: int | None  # of the prompt; None where it does not tell


@dataclass(frozen=True, slots=True)
class Reply:
    began: float  # when the request was sent
    texts: tuple[float, ...]  # when each event with text came; at least one
    usage: Usage

    @property
    def first(self) -> float:
        """Seconds to the first text."""
        return self.texts[0] - self.began

    @property
    def whole(self) -> float:
        """Seconds to the last."""
        return self.texts[-1] - self.began

    @property
    def each(self) -> float | None:
        """Seconds a token after the first; None where there is no other."""
        others = self.usage.answer - 1
        return (self.texts[-1] - self.texts[0]) / others if others > 0 else None

    @property
    def gaps(self) -> list[float]:
        """Seconds between events with text, which may bring several tokens each."""
        return [after - before for before, after in pairwise(self.texts)]


def read_reply(received: Received) -> Reply:
    """Raises AskError where that is no whole answer with its usage."""
    began, reads = received
    texts: list[float] = []
    usage, is_done = None, False
    for at, data in events(reads):
        if data == b"[DONE]":
            is_done = True
            break
        event = _parsed(data)
        if event.get("error"):
            raise AskError(_told(event))
        if _has_text(event):
            texts.append(at)
        if event.get("usage"):
            usage = _usage(event["usage"])
    if usage is None:
        raise AskError(_why_no_usage(reads, is_done, bool(texts)))
    if not texts:
        raise AskError("its answer had no text")
    return Reply(began, tuple(texts), usage)


def _why_no_usage(reads: Reads, is_done: bool, has_text: bool) -> str:
    if is_done:
        return (
            "its stream had no usage, so no token is counted: it has to know "
            "stream_options.include_usage"
        )
    if has_text:
        return "its stream ended without usage and [DONE]: the answer is cut off"
    body = b"".join(data for _, data in reads)
    return f"expected a stream of events, it sent {shown(body) if body else 'nothing'}"


def stream_error(reads: Reads) -> str | None:
    """What a stream that broke off said last, if that is an error."""
    for _, data in events(reads):
        try:
            event = _parsed(data)
        except AskError:
            continue
        if event.get("error"):
            return _told(event)
    return None


def _told(event: dict[str, Any]) -> str:
    return f"its stream ended with an error: {error_text(event)}"


def events(reads: Reads) -> Iterator[tuple[float, bytes]]:
    """Yield the data of each event that is whole, and when its end came."""
    rest, lines = b"", []
    for at, piece in reads:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                lines.append(line[5:].removeprefix(b" "))
            elif not line and lines:
                yield at, b"\n".join(lines)
                lines = []


def error_text(body: object) -> str:
    """What an error of OpenAI's shape, or one like it, says; else the beginning of all of it."""
    found = body
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(key):
            found = found[key]
    return found if isinstance(found, str) else json.dumps(found)[:_SHOWN]


def shown(data: bytes) -> str:
    """The beginning of what was not understood."""
    return repr(data[:_SHOWN].decode(errors="replace"))


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise AskError(f"expected events of JSON objects: it sent {shown(data)}")
    return found


def _has_text(event: dict[str, Any]) -> bool:
    choices = event.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            delta = choice.get("delta")
            said = delta if isinstance(delta, dict) else choice
            if any(said.get(name) for name in _TEXTS):
                return True
    return False


def _usage(told: object) -> Usage:
    found = told if isinstance(told, dict) else {}
    prompt, answer = found.get("prompt_tokens"), found.get("completion_tokens")
    if not (_is_count(prompt) and _is_count(answer)):
        raise AskError(f"its usage counts no tokens: {json.dumps(told)[:_SHOWN]}")
    details = found.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return Usage(prompt, answer, cached if _is_count(cached) and cached <= prompt else None)


def _is_count(value: object) -> TypeGuard[int]:
    return is_whole(value) and 0 <= value <= _MOST_TOKENS
