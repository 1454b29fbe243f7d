"""/v1/chat/completions: the answer out, whole or in chunks.

Comes in: what the engine gave. Goes out: OpenAI's bodies and chunks; text, reasoning and calls are
told apart by the answer's reader.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from octavo.protocol.answer import (
    Answer,
    AnswerReader,
    CallArguments,
    CallBegin,
    CallEnd,
    Reasoning,
    Text,
    collect,
    joined,
)
from octavo.protocol.answer import Event as AnswerEvent
from octavo.protocol.chat import ChatRequest
from octavo.protocol.common import FINISH_REASONS, Vocabulary, finite, progress_of, usage_of
from octavo.protocol.reasoning import reasoning_tokens
from octavo.protocol.streams import Event
from octavo.request import (
    Completion,
    FinishReason,
    Progress,
    RequestOutput,
    StreamChunk,
    TokenLogprobs,
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
        self._called: set[int] = set()  # choices that gave calls, all of them whole
        self._spoke: set[int] = set()  # choices of which some text, or a call, was told
        self._ended: set[int] = set()  # choices whose end was told
        # Content is null where there are calls and no text, which a first chunk cannot know.
        self._may_call = request.tools is not None and bool(request.tools.callable)
        self._no_text: dict[str, object] = {"content": None if self._may_call else ""}

    def whole(self, outputs: Sequence[RequestOutput]) -> dict[str, object]:
        """The response, of an output whose `failure` is None."""
        (output,) = outputs
        answers = [self._read(completion) for completion in output.outputs]
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [
                _choice(index, completion, answer, self._vocabulary)
                for index, (completion, answer) in enumerate(
                    zip(output.outputs, answers, strict=True)
                )
            ],
            "usage": self._usage(outputs),
        }

    def begin(self) -> list[Event]:
        delta = {"role": "assistant", **self._no_text}
        return [self._chunk(index, delta) for index in range(self._request.params.n)]

    def progress(self, prompt: int, progress: Progress) -> list[Event]:
        return [Event({**self._frame(), "choices": [], "prompt_progress": progress_of(progress)})]

    def piece(self, prompt: int, chunk: StreamChunk) -> list[Event]:
        deltas = self._deltas(chunk)
        logprobs = _logprobs(chunk.logprobs, self._vocabulary) if chunk.logprobs else None
        if logprobs is not None and not deltas:
            deltas = [self._no_text]
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
        if figures := self._request.stream.figures(outputs, self._usage):
            events.append(Event({**self._frame(), "choices": [], **figures}))
        return events

    def _end_of(self, index: int, reason: FinishReason) -> list[Event]:
        if reason not in FINISH_REASONS:  # a failure, which is told as an error
            return []
        self._ended.add(index)
        finish = finish_reason(reason, called=index in self._called)
        owes_text = self._may_call and index not in self._spoke
        return [self._chunk(index, {"content": ""} if owes_text else {}, finish_reason=finish)]

    def _usage(self, outputs: Sequence[RequestOutput]) -> dict[str, object]:
        count = sum(
            reasoning_tokens(
                each.token_ids, self._read(each).reasoning, self._vocabulary.token_bytes
            )
            for output in outputs
            for each in output.outputs
        )
        return {**usage_of(outputs), "completion_tokens_details": {"reasoning_tokens": count}}

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
        for each in found:
            if isinstance(each, Text):
                self._spoke.add(chunk.index)
            elif isinstance(each, CallBegin):
                self._spoke.add(chunk.index)
                self._called.discard(chunk.index)
            elif isinstance(each, CallEnd) and not each.is_broken:
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
    """OpenAI's word; a call that a stop or a limit broke off is no call."""
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
        "finish_reason": finish_reason(completion.finish_reason, called=answer.is_called),
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
