"""/v1/chat/completions: the body in, the response out.

Messages are read by `chat_messages`. Tools, images and audio are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from octavo.errors import kind_of
from octavo.grammar import GrammarSpec
from octavo.protocol.answer import (
    Answer,
    AnswerReader,
    CallArguments,
    CallBegin,
    Reasoning,
    Text,
    collect,
    joined,
)
from octavo.protocol.answer import Event as AnswerEvent
from octavo.protocol.bodies import BodyError, Fields, read_body, read_flag, read_kind, read_text
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
from octavo.protocol.structured import read_structured
from octavo.protocol.tools.asked import Tools, read_tools
from octavo.request import (
    Completion,
    FinishReason,
    Progress,
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
    honoured("tools", "Functions that the model may call", list),
    honoured("tool_choice", "none, auto, required, or one function", str, dict),
    honoured("parallel_tool_calls", "Whether one answer may call several", bool),
    honoured("reasoning_effort", "How much to reason, where the chat template has a switch", str),
    honoured("chat_template_kwargs", "Variables for the chat template: scalars", dict),
    *GENERATION,
)
_TEMPLATE_OWN = ("messages", "tools", "documents", "add_generation_prompt", "strftime_now")
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")


@dataclass(frozen=True, slots=True)
class ChatRequest:
    model: str | None
    messages: tuple[dict[str, Any], ...]
    tools: Tools | None = None
    effort: str | None = None  # of reasoning
    effort_fields: tuple[str, ...] = ("reasoning_effort",)  # that ask for it
    template_args: Mapping[str, object] = field(default_factory=dict)
    grammar: GrammarSpec | None = None  # that the answer is held to
    grammar_field: str = "response_format"  # that says so
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
    stream = read_streaming(fields)
    return ChatRequest(
        model=read_model(fields),
        messages=read_chat_messages(fields.get("messages")),
        tools=read_tools(fields),
        effort=read_effort(fields),
        template_args=read_template_args(fields),
        grammar=read_structured(fields),
        params=read_params(fields, own, spelling),
        options=replace(read_options(fields), begins_turn=True),
        stream=stream,
        noted=(*read.noted, *stream.noted),
    )


class ChatAnswer:
    """Write the answer of a ChatRequest. `created` in seconds since 1970; `new_reader` reads one
    answer."""

    ends_with_done = True

    def __init__(
        self,
        request: ChatRequest,
        *,
        id: str,
        created: int,
        model: str,
        vocabulary: Vocabulary,
        new_reader: Callable[[], AnswerReader],
    ) -> None:
        self._request = request
        self._vocabulary = vocabulary
        self._new_reader = new_reader
        self._head = {"id": id, "created": created, "model": model}
        self._readers: dict[int, AnswerReader] = {}  # of choices that have begun, and not ended
        self._called: set[int] = set()  # choices that gave a call
        self._ended: set[int] = set()  # choices whose end was told

    def whole(self, outputs: Sequence[RequestOutput]) -> dict[str, object]:
        """The response, of an output whose `failure` is None."""
        (output,) = outputs
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [
                _choice(index, completion, self._read(completion), self._vocabulary)
                for index, completion in enumerate(output.outputs)
            ],
            "usage": usage_of(outputs),
        }

    def begin(self) -> list[Event]:
        delta = {"role": "assistant", "content": ""}
        return [self._chunk(index, delta) for index in range(self._request.params.n)]

    def progress(self, prompt: int, progress: Progress) -> list[Event]:
        """How far a prompt is, as llama.cpp tells it."""
        told = {
            "total": progress.total,
            "cache": progress.cached,
            "processed": progress.processed,
            "time_ms": progress.time_ms,
            "eta_ms": progress.eta_ms,
        }
        return [Event({**self._frame(), "choices": [], "prompt_progress": told})]

    def piece(self, prompt: int, chunk: StreamChunk) -> list[Event]:
        deltas = self._deltas(chunk)
        logprobs = _logprobs(chunk.logprobs, self._vocabulary) if chunk.logprobs else None
        if logprobs is not None and not deltas:
            deltas = [{"content": ""}]
        events = [
            self._chunk(chunk.index, delta, None if i else logprobs)
            for i, delta in enumerate(deltas)
        ]
        if chunk.finish_reason is not None:
            events += self._end_of(chunk.index, chunk.finish_reason)
        return events

    def end(self, outputs: Sequence[RequestOutput]) -> list[Event]:
        """What no piece has told: the end of answers without one, and the figures if asked."""
        (output,) = outputs
        events = []
        for index, completion in enumerate(output.outputs):
            if index not in self._ended:
                events += self._end_of(index, completion.finish_reason)
        if figures := self._request.stream.figures(outputs):
            events.append(Event({**self._frame(), "choices": [], **figures}))
        return events

    def _end_of(self, index: int, reason: FinishReason) -> list[Event]:
        if reason not in FINISH_REASONS:  # a failure, which is told as an error
            return []
        self._ended.add(index)
        finish = finish_reason(reason, called=index in self._called)
        return [self._chunk(index, {}, finish_reason=finish)]

    def _read(self, completion: Completion) -> Answer:
        reader = self._new_reader()
        return collect([*reader.push(completion.text), *reader.finish()])

    def _deltas(self, chunk: StreamChunk) -> list[dict[str, object]]:
        reader = self._readers.get(chunk.index)
        if reader is None:
            reader = self._readers[chunk.index] = self._new_reader()
        found = reader.push(chunk.text)
        if chunk.finish_reason is not None:
            found = joined([*found, *reader.finish()])
        if any(isinstance(each, CallBegin) for each in found):
            self._called.add(chunk.index)
        return [delta for each in found if (delta := _delta(each))]

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


def finish_reason(reason: FinishReason, *, called: bool) -> str:
    """OpenAI's word; a call that a limit broke off is no call."""
    return "tool_calls" if called and reason == "stop" else FINISH_REASONS[reason]


def _choice(
    index: int, completion: Completion, answer: Answer, vocabulary: Vocabulary
) -> dict[str, object]:
    message: dict[str, object] = {
        "role": "assistant",
        "content": answer.content,
        "refusal": None,
    }
    if answer.reasoning is not None:
        message["reasoning_content"] = answer.reasoning
    if answer.calls:
        message["tool_calls"] = [_call(each.id, each.name, each.arguments) for each in answer.calls]
    return {
        "index": index,
        "message": message,
        "logprobs": _logprobs(completion.logprobs, vocabulary),
        "finish_reason": finish_reason(completion.finish_reason, called=bool(answer.calls)),
    }


def _delta(event: AnswerEvent) -> dict[str, object] | None:
    """What a chunk says of an event; the end of a call says itself."""
    match event:
        case Text():
            return {"content": event.text}
        case Reasoning():
            return {"reasoning_content": event.text}
        case CallBegin():
            call = {"index": event.index, **_call(event.id, event.name, "")}
            return {"tool_calls": [call]}
        case CallArguments():
            more = {"index": event.index, "function": {"arguments": event.text}}
            return {"tool_calls": [more]}
    return None


def _call(id: str, name: str, arguments: str) -> dict[str, object]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


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


def read_effort(fields: Fields) -> str | None:
    effort = read_text(fields, "reasoning_effort")
    if effort is not None and effort not in _EFFORTS:
        expected = ", ".join(_EFFORTS)
        why = f"reasoning_effort={effort!r}: expected one of {expected}"
        raise BodyError(why, "reasoning_effort")
    return effort


def read_template_args(fields: Fields) -> dict[str, object]:
    """Variables of the template: scalars alone, and none that we give it."""
    found = read_kind(fields, "chat_template_kwargs", dict) or {}
    for name, value in found.items():
        place = f"chat_template_kwargs.{name}"
        if name in _TEMPLATE_OWN:
            raise BodyError(f"{place} has a field of its own", place)
        if isinstance(value, dict | list):
            raise BodyError(f"{place}: expected a scalar, found {kind_of(value)}", place)
    return found


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
