"""Readers: who waits for which requests, and what they are told: text, an end, an error.

Comes in: prepared requests, each with the OutputQueue of who reads it, and what steps gave. Goes
out: Updates, kept until `tell`, so that what a round did is told when all of it is done. A request
whose text raises ends alone. Knows the engine and texts; knows no thread: the engine's calls it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from octavo.engine.engine import Engine
from octavo.engine.nouns import Request
from octavo.engine.step import StepResult
from octavo.errors import EngineClosedError, UsageError
from octavo.request import StreamChunk
from octavo.serving.output_queue import OutputQueue, Update
from octavo.serving.prepare import PreparedRequest
from octavo.serving.request_text import RequestText, metrics
from octavo.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Open:
    """A request whose reader waits for more."""

    text: RequestText
    output: OutputQueue
    index: int  # of the request in its queue


class Readers:
    def __init__(self, engine: Engine, tokenizer: Tokenizer) -> None:
        self.num_cancelled = 0  # requests that their readers gave up, so far
        self._engine = engine
        self._tokenizer = tokenizer
        self._open: dict[Request, _Open] = {}
        self._updates: list[tuple[OutputQueue, Update]] = []  # to be told

    @property
    def num_open(self) -> int:
        """Requests that have not ended."""
        return len(self._open)

    @property
    def some_end(self) -> bool:
        """Whether a reader is to be told of an end."""
        return any(update.ends for _, update in self._updates)

    def add(self, output: OutputQueue, requests: Sequence[PreparedRequest]) -> None:
        """Queue all of the requests or none: what the engine refuses its reader is told."""
        try:
            for index, r in enumerate(requests):
                request = self._engine.add(r.tokens, r.params, r.options, r.every_row)
                output.requests.append(request)
                self._open[request] = _Open(RequestText(request, self._tokenizer), output, index)
        except Exception as error:
            self.end(output, error)

    def bring_forward(self, result: StepResult) -> None:
        """Bring texts up to the tokens that a step gave."""
        step = self._engine.records[-1].step if self._engine.records else None
        for request in dict.fromkeys([*(b.request for b in result.grown), *result.finished]):
            if request in self._open:
                self._bring_forward(self._open[request], step)

    def end(self, output: OutputQueue, error: Exception) -> None:
        """End what is open of a queue with an error."""
        for request in output.requests:
            if self._open.pop(request, None) is not None:
                self.num_cancelled += output.is_cancelled
                self._finish(request)
        self._updates.append((output, Update(error=error)))

    def end_all(self, error: Exception) -> None:
        """End all that is open with an error."""
        for output in self._outputs():
            self.end(output, error)

    def abort(self, output: OutputQueue) -> None:
        """End what is open of a queue with what it has."""
        if not output.requests:  # its text is being encoded
            output.is_cancelled = True
            self.end(output, EngineClosedError("the engine closed before the request began"))
        for request in output.requests:
            if request in self._open:
                self._finish(request)
                self._bring_forward(self._open[request], None)

    def abort_all(self) -> None:
        """Python ends. Daemon threads are told nothing: they wait until they are gone."""
        for output in self._outputs():
            self.abort(output)
        self._updates = [(o, update) for o, update in self._updates if not o.is_daemons]

    def tell(self) -> None:
        """Tell all readers what came."""
        updates, self._updates = self._updates, []
        for output, update in updates:
            output.put(update)

    def _outputs(self) -> list[OutputQueue]:
        return list(dict.fromkeys(o.output for o in self._open.values()))

    def _finish(self, request: Request, error: Exception | None = None) -> None:
        try:
            self._engine.finish(request, "error" if error else "abort", error)
        except Exception:
            logger.exception("the engine failed at the end of a request")

    def _bring_forward(self, changed: _Open, step: int | None) -> None:
        """Bring a request's text up to its tokens; what raises here ends that request alone."""
        text, output, request = changed.text, changed.output, changed.text.request
        if output.is_dead:
            self.end(output, UsageError("the event loop was closed"))
            return
        update = Update(changed.index)
        try:
            for branch in text.catch_up():
                self._engine.finish_branch(branch, "stop")
            if output.streams:
                update.chunks = text.take(step)
        except BaseException as error:
            self._finish(request, as_exception(error))
        if request.finished:
            del self._open[request]
            self._tell_end(update, text)
        if update.chunks or update.ends:
            self._updates.append((output, update))

    def _tell_end(self, update: Update, text: RequestText) -> None:
        try:
            if text.request.error is not None:
                update.fail(text.request.error)
            update.output = text.output(metrics(text.request))
        except Exception as error:
            update.fail(error)
        if update.output is not None and update.error is None:
            update.chunks = update.chunks or [StreamChunk("", ())]
            update.chunks[-1].output = update.output


def as_exception(error: BaseException) -> Exception:
    """Return the error as an Exception, which readers can be told: a panic of Rust is none."""
    return error if isinstance(error, Exception) else RuntimeError(str(error))
