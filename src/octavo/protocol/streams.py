"""What an answer becomes on its way out: events of a stream, or one whole body.

An answer of any API is written by one object: it begins, takes pieces of text as they come, and
ends; or it is asked for the whole at once. Knows no bytes and no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from octavo.request import RequestOutput, StreamChunk


class Event(NamedTuple):
    """An event of a stream; in OpenAI's older APIs it has no name."""

    data: object
    name: str | None = None


class AnswerWriter(Protocol):
    """`prompt` is the index of one of the request's prompts; each has its own output."""

    ends_with_done: bool  # the stream ends as OpenAI's do, with [DONE]

    def begin(self) -> Sequence[Event]: ...
    def piece(self, prompt: int, chunk: StreamChunk) -> Sequence[Event]: ...
    def end(self, outputs: Sequence[RequestOutput]) -> Sequence[Event]: ...
    def whole(self, outputs: Sequence[RequestOutput]) -> dict[str, object]: ...
