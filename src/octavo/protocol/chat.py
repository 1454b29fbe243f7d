"""/v1/chat/completions: the body in, the response out.

Messages are read by `chat_messages`. Tools, images and audio are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from octavo.protocol.bodies import BodyError, Fields, read_body, read_flag
from octavo.protocol.chat_messages import read_chat_messages
from octavo.protocol.common import FINISH_REASONS, Vocabulary, finite, usage_of
from octavo.protocol.fields import GENERATION, honoured, table
from octavo.protocol.sampling import (
    Streaming,
    read_model,
    read_options,
    read_params,
    read_streaming,
)
from octavo.protocol.streams import Event
from octavo.request import (
    Completion,
    FinishReason,
    RequestOptions,
    RequestOutput,
    StreamChunk,
    TokenLogprobs,
)
from octavo.sampling_params import SamplingParams

CHAT_FIELDS = table(
    honoured("messages", "The conversation so far"),
    honoured("max_completion_tokens", "Most tokens of an answer; default: up to the context"),
    honoured("max_tokens", "The old name of max_completion_tokens"),
    honoured("logprobs", "Give log-probabilities of each token", bool),
    honoured("top_logprobs", "And of this many others"),
    *GENERATION,
)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    model: str | None
    messages: tuple[dict[str, Any], ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    options: RequestOptions = field(default_factory=lambda: RequestOptions(begins_turn=True))
    stream: Streaming = field(default_factory=Streaming)
    noted: tuple[str, ...] = ()  # fields that were given and change no answer


def parse_chat(body: object) -> ChatRequest:
    """Raises BodyError, which names the field."""
    read = read_body(body, CHAT_FIELDS)
    fields = read.fields
    limit = _read_limit(fields)
    own = {"max_tokens": fields.get(limit), "logprobs": _read_logprobs(fields)}
    spelling = {"max_tokens": limit, "logprobs": "top_logprobs"}
    return ChatRequest(
        model=read_model(fields),
        messages=read_chat_messages(fields.get("messages")),
        params=read_params(fields, own, spelling),
        options=replace(read_options(fields), begins_turn=True),
        stream=read_streaming(fields),
        noted=read.noted,
    )


class ChatAnswer:
    """Write the answer of a ChatRequest. `created` in seconds since 1970."""

    ends_with_done = True

    def __init__(
        self, request: ChatRequest, *, id: str, created: int, model: str, vocabulary: Vocabulary
    ) -> None:
        self._request = request
        self._vocabulary = vocabulary
        self._head = {"id": id, "created": created, "model": model}
        self._ended: set[int] = set()  # choices whose end was told

    def whole(self, outputs: Sequence[RequestOutput]) -> dict[str, object]:
        """The response, of an output whose `failure` is None."""
        (output,) = outputs
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [
                _choice(index, completion, self._vocabulary)
                for index, completion in enumerate(output.outputs)
            ],
            "usage": usage_of(outputs),
        }

    def begin(self) -> list[Event]:
        delta = {"role": "assistant", "content": ""}
        return [self._chunk(index, delta) for index in range(self._request.params.n)]

    def piece(self, prompt: int, chunk: StreamChunk) -> list[Event]:
        events = []
        if chunk.text or chunk.logprobs:
            logprobs = _logprobs(chunk.logprobs, self._vocabulary)
            events.append(self._chunk(chunk.index, {"content": chunk.text}, logprobs))
        if chunk.finish_reason is not None:
            events += self._end_of(chunk.index, chunk.finish_reason)
        return events

    def end(self, outputs: Sequence[RequestOutput]) -> list[Event]:
        """What no piece has told: the end of answers without one, and the usage if asked."""
        (output,) = outputs
        events = []
        for index, completion in enumerate(output.outputs):
            if index not in self._ended:
                events += self._end_of(index, completion.finish_reason)
        if self._request.stream.include_usage:
            usage = usage_of(outputs)
            events.append(Event({**self._frame(), "choices": [], "usage": usage}))
        return events

    def _end_of(self, index: int, reason: FinishReason) -> list[Event]:
        if reason not in FINISH_REASONS:  # a failure, which is told as an error
            return []
        self._ended.add(index)
        return [self._chunk(index, {}, finish_reason=FINISH_REASONS[reason])]

    def _chunk(
        self,
        index: int,
        delta: Mapping[str, object],
        logprobs: object = None,
        finish_reason: str | None = None,
    ) -> Event:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        return Event({**self._frame(), "choices": [choice]})

    def _frame(self) -> dict[str, object]:
        return {**self._head, "object": "chat.completion.chunk"}


def _choice(index: int, completion: Completion, vocabulary: Vocabulary) -> dict[str, object]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": completion.text, "refusal": None},
        "logprobs": _logprobs(completion.logprobs, vocabulary),
        "finish_reason": FINISH_REASONS[completion.finish_reason],
    }


def _logprobs(
    tokens: Sequence[TokenLogprobs] | None, vocabulary: Vocabulary
) -> dict[str, object] | None:
    if tokens is None:
        return None
    content = []
    for token in tokens:
        top = [_token(token_id, logprob, vocabulary) for token_id, logprob in token.top]
        own = _token(token.token_id, token.logprob, vocabulary)
        content.append({**own, "top_logprobs": top})
    return {"content": content, "refusal": None}


def _token(token_id: int, logprob: float, vocabulary: Vocabulary) -> dict[str, object]:
    data = vocabulary.token_bytes(token_id)
    text = data.decode("utf-8", "replace")  # a token may end inside a character: see `bytes`
    return {"token": text, "logprob": finite(logprob), "bytes": list(data)}


def _read_limit(fields: Fields) -> str:
    """Return which of the two names of the limit the body uses."""
    if "max_tokens" in fields and "max_completion_tokens" in fields:
        raise BodyError(
            "max_tokens is the old name of max_completion_tokens: give one of them", "max_tokens"
        )
    return "max_tokens" if "max_tokens" in fields else "max_completion_tokens"


def _read_logprobs(fields: Fields) -> object:
    if read_flag(fields, "logprobs"):
        return fields.get("top_logprobs", 0)
    if fields.get("top_logprobs", 0) != 0:
        raise BodyError("top_logprobs needs logprobs: true", "top_logprobs")
    return None
