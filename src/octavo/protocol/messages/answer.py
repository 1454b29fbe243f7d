"""The answer of a Messages request: a message of blocks, or the events that it is made of.

The message is put together from the same events, so that both ways agree. No block is empty: one
begins with the first of its text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from octavo.protocol.answer import (
    AnswerReader,
    CallArguments,
    CallBegin,
    Reasoning,
    Text,
    collect,
    joined,
)
from octavo.protocol.answer import Event as AnswerEvent
from octavo.protocol.common import Vocabulary, ended_by
from octavo.protocol.messages.written_object import object_of
from octavo.protocol.reasoning import reasoning_tokens
from octavo.protocol.streams import Event
from octavo.records import Pin
from octavo.request import Completion, RequestOutput, StreamChunk

# Clients give thinking back only with one, and nothing here depends on it.
_SIGNATURE = "octavo"


class MessageAnswer:
    """Write one message. `max_tokens` are the request's; `num_tokens` its prompt's."""

    ends_with_done = False

    def __init__(
        self,
        *,
        id: str,
        model: str,
        max_tokens: int | None,
        num_tokens: int,
        shows_thinking: bool = True,
        new_reader: Callable[[], AnswerReader],
        vocabulary: Vocabulary,
    ) -> None:
        self._head = {"id": id, "type": "message", "role": "assistant", "model": model}
        self._max_tokens = max_tokens
        self._num_tokens = num_tokens
        self.pin: Pin | None = None  # of what is marked, once that is computed
        self._new_reader = new_reader
        self._vocabulary = vocabulary
        self._shows_thinking = shows_thinking
        self._reader = new_reader()
        self._blocks = _Blocks(shows_thinking)

    def whole(self, outputs: Sequence[RequestOutput]) -> dict[str, object]:
        """The message, of an output whose `failure` is None."""
        (output,) = outputs
        (completion,) = output.outputs
        blocks = _Blocks(self._shows_thinking)
        content = content_of([*blocks.take(self._read(completion)), *blocks.end()])
        return {
            **self._head,
            "content": content,
            **self._ending(completion),
            "usage": self._usage(output, completion),
        }

    def begin(self) -> list[Event]:
        """What the cache has is not known yet: the last usage says it."""
        message: dict[str, object] = {
            **self._head,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(self._num_tokens, 0, 0, 0),
        }
        return [_event("message_start", message=message)]

    def piece(self, prompt: int, chunk: StreamChunk) -> list[Event]:
        return self._blocks.take(self._reader.push(chunk.text))

    def end(self, outputs: Sequence[RequestOutput]) -> list[Event]:
        (output,) = outputs
        (completion,) = output.outputs
        blocks = self._blocks
        events = [*blocks.take(self._reader.finish()), *blocks.end()]
        ending = self._ending(completion)
        usage = self._usage(output, completion)
        delta = _event(
            "message_delta", delta=ending, usage=usage, **self._pinned(), **ended_by(outputs)
        )
        return [*events, delta, _event("message_stop")]

    def _ending(self, completion: Completion) -> dict[str, object]:
        """A call that was broken off is no call to be made."""
        reason, sequence = "max_tokens", None
        if isinstance(completion.stop, str):
            reason, sequence = "stop_sequence", completion.stop
        elif completion.finish_reason == "stop":
            reason = "tool_use" if collect(self._read(completion)).is_called else "end_turn"
        elif completion.finish_reason == "length" and len(completion.token_ids) != self._max_tokens:
            reason = "model_context_window_exceeded"
        return {"stop_reason": reason, "stop_sequence": sequence}

    def _pinned(self) -> dict[str, object]:
        """What plain answers say in a header, which a stream sends before it is known."""
        pin = self.pin
        if pin is None:
            return {}
        return {"pinned": {"num_tokens": pin.num_tokens, "why_not": pin.why_not}}

    def _read(self, completion: Completion) -> list[AnswerEvent]:
        reader = self._new_reader()
        return joined([*reader.push(completion.text), *reader.finish()])

    def _usage(self, output: RequestOutput, completion: Completion) -> dict[str, object]:
        usage = output.usage
        read = usage.cached_tokens
        created = max(0, self.pin.num_tokens - read) if self.pin is not None else 0
        thinking = reasoning_tokens(
            completion.token_ids,
            collect(self._read(completion)).reasoning,
            self._vocabulary.token_bytes,
        )
        return {
            **_usage(usage.prompt_tokens, read, created, usage.completion_tokens),
            "output_tokens_details": {"thinking_tokens": thinking},
        }


class _Blocks:
    """The events of blocks, one after the other."""

    def __init__(self, shows_thinking: bool) -> None:
        self._shows_thinking = shows_thinking
        self._count = 0
        self._open: str | None = None  # the type of the block that is

    def take(self, events: Iterable[AnswerEvent]) -> list[Event]:
        return [made for event in events for made in self._take(event)]

    def end(self) -> list[Event]:
        """Nothing more comes in the block that is open, if one is."""
        if self._open is None:
            return []
        index, kind = self._count - 1, self._open
        self._open = None
        stop = _event("content_block_stop", index=index)
        if kind != "thinking":
            return [stop]
        return [_delta(index, "signature_delta", signature=_SIGNATURE), stop]

    def _take(self, event: AnswerEvent) -> list[Event]:
        match event:
            case Text(text):
                begun = self._begin({"type": "text", "text": ""})
                return [*begun, _delta(self._count - 1, "text_delta", text=text)]
            case Reasoning(text) if self._shows_thinking:
                begun = self._begin({"type": "thinking", "thinking": "", "signature": ""})
                return [*begun, _delta(self._count - 1, "thinking_delta", thinking=text)]
            case CallBegin(_, call_id, name):
                ended = self.end()
                call = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
                return [*ended, *self._begin(call)]
            case CallArguments(_, text):
                return [_delta(self._count - 1, "input_json_delta", partial_json=text)]
            case Reasoning():
                return []
        return self.end()

    def _begin(self, block: Mapping[str, object]) -> list[Event]:
        """Nothing where a block of this type is open."""
        if self._open == block["type"]:
            return []
        ended = self.end()
        self._open = str(block["type"])
        self._count += 1
        start = _event("content_block_start", index=self._count - 1, content_block=block)
        return [*ended, start]


def content_of(events: Iterable[Event]) -> list[dict[str, Any]]:
    """The blocks that events of blocks make."""
    content: list[dict[str, Any]] = []
    arguments: dict[int, str] = {}
    for event in events:
        data: Any = event.data
        match data:
            case {"content_block": block}:
                content.append(dict(block))
            case {"index": index, "delta": {"partial_json": text}}:
                arguments[index] = arguments.get(index, "") + text
            case {"index": index, "delta": delta}:
                block = content[index]
                for name in ("text", "thinking", "signature"):
                    if name in delta:
                        block[name] += delta[name]
    for index, text in arguments.items():
        content[index]["input"] = object_of(text)
    return content


def _usage(prompt: int, read: int, created: int, output: int) -> dict[str, object]:
    """The three parts of the input are the prompt."""
    return {
        "input_tokens": prompt - read - created,
        "cache_creation_input_tokens": created,
        "cache_read_input_tokens": read,
        "output_tokens": output,
    }


def _delta(index: int, kind: str, **more: object) -> Event:
    return _event("content_block_delta", index=index, delta={"type": kind, **more})


def _event(name: str, **more: object) -> Event:
    return Event({"type": name, **more}, name)
