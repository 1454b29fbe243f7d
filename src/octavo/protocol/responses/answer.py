"""/v1/responses: the answer out, whole or as events in their documented order.

Comes in: what a model wrote, as the reader of its chat tells it. Goes out: items, each begun, grown
and ended by events with one counter, and the response around them. A whole answer is made by the
same steps as a stream of it. Knows no store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from octavo.errors import OctavoError
from octavo.protocol.answer import AnswerReader, CallArguments, CallBegin, CallEnd, Reasoning, Text
from octavo.protocol.answer import Event as AnswerEvent
from octavo.protocol.common import (
    FINISH_REASONS,
    Vocabulary,
    cache_of,
    ended_by,
    error_code,
    finite,
    message_of,
    status_of,
)
from octavo.protocol.responses.items import (
    Data,
    Item,
    MessageItem,
    ReasoningItem,
    Status,
    call_item,
)
from octavo.protocol.responses.request import ResponsesRequest
from octavo.protocol.responses.usage import usage_of
from octavo.protocol.streams import Event
from octavo.request import FinishReason, RequestOutput, StreamChunk, TokenLogprobs


class ResponsesAnswer:
    """Write the answer of a ResponsesRequest. `created` in seconds since 1970; `keep` is given the
    response when it has ended, before anybody reads that."""

    ends_with_done = False

    def __init__(
        self,
        request: ResponsesRequest,
        *,
        id: str,
        created: int,
        model: str,
        vocabulary: Vocabulary,
        reader: AnswerReader,
        keep: Callable[[Data], None],
    ) -> None:
        self._request = request
        self._vocabulary = vocabulary
        self._reader = reader
        self._keep_response = keep
        self._is_kept = False
        self._head = {"id": id, "object": "response", "created_at": created, "model": model}
        self._echo = _echo(request)
        self._sequence = 0
        self._ended: list[Data] = []  # items
        self._open: Item | None = None
        self._waiting: list[Data] = []  # log-probabilities of tokens that no text has told
        self._finish: FinishReason | None = None

    def begin(self) -> list[Event]:
        response = self._response("in_progress")
        return [
            self._event({"type": "response.created", "response": response}),
            self._event({"type": "response.in_progress", "response": response}),
        ]

    def piece(self, prompt: int, chunk: StreamChunk) -> list[Event]:
        return self._told(self._take(chunk.text, chunk.logprobs, chunk.finish_reason))

    def end(self, outputs: Sequence[RequestOutput]) -> list[Event]:
        (output,) = outputs
        events = self._told(self._finished(output))
        return [*events, self._event(self._last(output, cached=True))]

    def whole(self, outputs: Sequence[RequestOutput]) -> dict[str, object]:
        """The response, of an output whose `failure` is None."""
        (output,) = outputs
        (completion,) = output.outputs
        self._take(completion.text, completion.logprobs, completion.finish_reason)
        response: dict[str, object] = self._last(output, cached=False)["response"]
        return response

    def failed(self, error: OctavoError) -> Event:
        """What ends a stream that is broken off."""
        self._break_off()
        response = self._response("failed", error=error_of(error))
        self._keep(response)
        return self._event({"type": "response.failed", "response": response})

    def cancelled(self) -> tuple[Event, Data]:
        """What ends a stream whose caller wants no more; and the response."""
        self._break_off()
        response = self._response("cancelled")
        self._keep(response)
        return self._event({"type": "response.incomplete", "response": response}), response

    def _keep(self, response: Data) -> None:
        """Keep how it ended first: what is told may fail after that."""
        if not self._is_kept:
            self._is_kept = True
            self._keep_response(response)

    def _break_off(self) -> None:
        if self._open is not None:
            self._ended.append(self._open.body("incomplete"))
            self._open = None

    def _finished(self, output: RequestOutput) -> list[Data]:
        """What no piece has told: the end of an answer without one."""
        (completion,) = output.outputs
        return [] if self._finish else self._take("", None, completion.finish_reason)

    def _last(self, output: RequestOutput, *, cached: bool) -> Data:
        """The event that says how it ended, with the whole response."""
        figures: Data = {"usage": usage_of(output, self._reasoned(), self._vocabulary)}
        if cached and self._request.chat.stream.include_cache:
            figures |= {"cache": cache_of([output]), **ended_by([output])}
        status, more = "completed", {}
        if self._finish is not None and FINISH_REASONS[self._finish] == "length":
            status, more = "incomplete", {"incomplete_details": {"reason": "max_output_tokens"}}
        else:
            figures["completed_at"] = int(time.time())
        response = self._response(status, **more, **figures)
        self._keep(response)
        return {"type": f"response.{status}", "response": response}

    def _reasoned(self) -> str:
        items = (each for each in self._ended if each["type"] == "reasoning")
        return "".join(part["text"] for each in items for part in each["content"])

    def _take(
        self,
        text: str,
        logprobs: Sequence[TokenLogprobs] | None,
        finish: FinishReason | None,
    ) -> list[Data]:
        """The answer goes on; the events of that."""
        self._waiting += [_logprob(each, self._vocabulary) for each in logprobs or ()]
        events = [told for each in self._reader.push(text) for told in self._said(each)]
        if finish is not None and finish in FINISH_REASONS:
            self._finish = finish
            status: Status = "completed" if FINISH_REASONS[finish] == "stop" else "incomplete"
            for each in self._reader.finish():
                events += self._said(each, status)
            events += self._close(status)
        return events

    def _said(self, event: AnswerEvent, status: Status = "completed") -> list[Data]:
        """`status`: of a call that ends with it."""
        match event:
            case Text():
                events = self._in(MessageItem)
                self._hand_over()
                return [*events, *self._more(event.text)]
            case Reasoning():
                return [*self._in(ReasoningItem), *self._more(event.text)]
            case CallBegin():
                target = self._request.told.target(event.name)
                return [*self._close("completed"), *self._begin(call_item(target, event.id))]
            case CallArguments():
                return self._more(event.text)
            case CallEnd():
                return self._close(status)

    def _in(self, kind: type[MessageItem] | type[ReasoningItem]) -> list[Data]:
        """Begin an item of this kind, unless one is open."""
        if isinstance(self._open, kind):
            return []
        return [*self._close("completed"), *self._begin(kind())]

    def _begin(self, item: Item) -> list[Data]:
        self._open = item
        added = {"type": "response.output_item.added", "item": item.body("in_progress")}
        return [self._placed(added), *self._of_item(item.begin())]

    def _more(self, text: str) -> list[Data]:
        assert self._open is not None, "an item grows after it began"
        return self._of_item(self._open.more(text))

    def _close(self, status: Status) -> list[Data]:
        """End the item that is open, if one is."""
        if self._open is None:
            return []
        self._hand_over()
        events = self._of_item(self._open.end())
        body = self._open.body(status)
        events.append(self._placed({"type": "response.output_item.done", "item": body}))
        self._ended.append(body)
        self._open = None
        return events

    def _hand_over(self) -> None:
        """Log-probabilities of all tokens up to here stand beside the text that is open."""
        if isinstance(self._open, MessageItem):
            self._open.logprobs += self._waiting
            self._waiting = []

    def _of_item(self, events: list[Data]) -> list[Data]:
        assert self._open is not None, "events of an item that is open"
        return [self._placed({**each, "item_id": self._open.id}) for each in events]

    def _placed(self, event: Data) -> Data:
        return {**event, "output_index": len(self._ended)}

    def _told(self, events: list[Data]) -> list[Event]:
        return [self._event(each) for each in events]

    def _event(self, data: Data) -> Event:
        numbered = {**data, "sequence_number": self._sequence}
        self._sequence += 1
        return Event(numbered, data["type"])

    def _response(self, status: str, **own: Any) -> Data:
        nothing = {"error": None, "incomplete_details": None, "completed_at": None, "usage": None}
        return {
            **self._head,
            "status": status,
            **self._echo,
            "output": [*self._ended],
            **nothing,
            **own,
        }


def error_of(error: OctavoError) -> Data:
    """An error as a response has it."""
    kind = "invalid_prompt" if status_of(error) < 500 else "server_error"
    if status_of(error) == 429:
        kind = "rate_limit_exceeded"
    return {"code": error_code(error) or kind, "message": message_of(error)}


def _echo(request: ResponsesRequest) -> Data:
    """What was asked, told back."""
    given, chat = request.given, request.chat
    text = given.get("text") or {}
    reasoning = given.get("reasoning") or {}
    return {
        "background": False,
        "instructions": request.instructions,
        "max_output_tokens": chat.params.max_tokens,
        "metadata": given.get("metadata") or {},
        "parallel_tool_calls": given.get("parallel_tool_calls", True),
        "previous_response_id": request.previous,
        "prompt_cache_key": given.get("prompt_cache_key"),
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "store": request.store,
        "temperature": chat.params.temperature,
        "text": {"format": text.get("format") or {"type": "text"}},
        "tool_choice": given.get("tool_choice", "auto"),
        "tools": given.get("tools", []),
        "top_logprobs": given.get("top_logprobs", 0),
        "top_p": chat.params.top_p,
        "truncation": "disabled",
    }


def _logprob(token: TokenLogprobs, vocabulary: Vocabulary) -> Data:
    top = [_token(token_id, logprob, vocabulary) for token_id, logprob in token.top]
    return {**_token(token.token_id, token.logprob, vocabulary), "top_logprobs": top}


def _token(token_id: int, logprob: float, vocabulary: Vocabulary) -> Data:
    data = vocabulary.token_bytes(token_id)
    text = data.decode("utf-8", "replace")  # a token may end inside a character: see `bytes`
    return {"token": text, "logprob": finite(logprob), "bytes": list(data)}
