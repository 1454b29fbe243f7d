"""EngineLoop: the one thread that steps the engine, for everybody who waits for answers.

Commands come in through one inbox, from any thread, and are done between two steps, in their order;
what a step gave goes out to the OutputQueue of each reader, when its text was brought forward.

1. The thread starts with the first command and holds the loop only while it works: with the loop
   it is gone. It sleeps until a command comes or idle memory can go back to the system.
2. `cancel` and `soon` never wait and take no lock: the garbage collector may call them anywhere.
3. What breaks off a waiting caller, Ctrl-C too, never meets a step.
4. A step that raises has changed nothing that it did not finish, so the next is tried; when that
   raises too, all open requests end with the error.
5. When Python ends, open requests end, and the thread after its step. What the main thread asks
   later is done there.

Knows tokens and text, no prompts and no event loops.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from octavo.engine.engine import Engine
from octavo.engine.nouns import Request
from octavo.engine.step import StepResult
from octavo.errors import EngineClosedError, KernelError, UsageError
from octavo.request import StreamChunk
from octavo.serving.output_queue import OutputQueue, Update
from octavo.serving.prepare import PreparedRequest
from octavo.serving.promise import promise
from octavo.serving.request_text import RequestText, metrics
from octavo.tokenizer import Tokenizer

T = TypeVar("T")
Command = Callable[["EngineLoop"], None]
Inbox = queue.SimpleQueue[Command | None]  # None: nothing to do but to look whether to end

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Open:
    """A request whose reader waits for more."""

    text: RequestText
    output: OutputQueue
    index: int  # of the request in its queue


class EngineLoop:
    def __init__(self, engine: Engine, tokenizer: Tokenizer) -> None:
        self.engine = engine  # others than the thread only look at its counts and records
        self.totals = engine.totals()  # of all whose end was told, and of others 50 ms ago at most
        self.tokenizer = tokenizer
        self._inbox: Inbox = queue.SimpleQueue()
        self._open: dict[Request, _Open] = {}
        self._updates: list[tuple[OutputQueue, Update]] = []  # to put at the end of this round
        self.at_rest = threading.Event()  # no request runs, and one has run
        self._has_stepped = False
        self._step_failed = False  # the last one
        self._python_ends = False
        self._num_cancelled = 0
        self._process: int | None = None  # in which the thread was started
        self._start_lock = threading.RLock()  # who has it may be called in a signal handler
        self._run_lock = threading.Lock()  # of who runs, or waits for the end of who does
        me = weakref.ref(self)
        self._at_exit = partial(_end_with_python, me)
        self._run = partial(_run, me, self._inbox, self._run_lock, self._at_exit)
        weakref.finalize(self, self._inbox.put, None).atexit = False

    @property
    def num_open(self) -> int:
        """Requests that have not ended."""
        return len(self._open)

    def submit(self, output: OutputQueue, requests: Sequence[PreparedRequest]) -> None:
        """Queue all of the requests or none. What the engine refuses is raised to the reader.
        Raises EngineClosedError in a forked process, KernelError where no thread can be had."""
        self._send(lambda loop: loop._submit(output, requests))

    def cancel(self, output: OutputQueue) -> None:
        """End the requests of a queue that nobody reads any more."""
        output.is_cancelled = True
        self.soon(lambda loop: loop._end(output, UsageError("the stream was closed")))

    def abort(self, output: OutputQueue) -> None:
        """End its requests with what they have."""
        self.soon(lambda loop: loop._abort(output))

    def soon(self, command: Command) -> None:
        """Have a command done, and wait for nothing."""
        self._inbox.put(command)

    def ask(self, work: Callable[[], T]) -> Future[T]:
        """Have `work` done by the thread between two steps, unless it is cancelled before."""
        outcome, do = promise(work)
        self._send(lambda _: do())
        return outcome

    def call(self, work: Callable[[], T]) -> T:
        """Run `work` there, and wait for it."""
        return self.ask(work).result()

    def start(self) -> None:
        """Start the thread, if it was not. Raises as `submit`."""
        with self._start_lock:
            if self._process is None:
                self._start_thread()
                self._process = os.getpid()
        if self._process != os.getpid():
            raise EngineClosedError(
                "the engine's thread stayed in the process that this one was forked from: make "
                "the LLM and its AsyncEngine in this one"
            )

    def _start_thread(self) -> None:
        # Python must not end under a step: its thread could not come back from the native program.
        atexit.register(self._at_exit)
        try:
            threading.Thread(target=self._run, name="octavo-engine", daemon=True).start()
        except RuntimeError as error:
            if threading.main_thread().is_alive():  # the system gives no more
                atexit.unregister(self._at_exit)
                raise KernelError(
                    f"{error}, which an engine needs: raise the limits (`ulimit -u`, `ulimit -v`)"
                ) from None
            self._python_ends = True

    def _send(self, command: Command) -> None:
        self.start()
        self._inbox.put(command)
        if self._python_ends:
            if threading.current_thread().daemon:
                threading.Event().wait()  # until it is gone with all the others
            self._run()

    def _submit(self, output: OutputQueue, requests: Sequence[PreparedRequest]) -> None:
        if output.is_cancelled:
            return
        try:
            self.at_rest.clear()
            for index, r in enumerate(requests):
                request = self.engine.add(r.tokens, r.params, r.options, r.every_row)
                output.requests.append(request)
                self._open[request] = _Open(RequestText(request, self.tokenizer), output, index)
        except Exception as error:
            self._end(output, error)

    def _end(self, output: OutputQueue, error: Exception) -> None:
        """End what is open of a queue with an error."""
        for request in output.requests:
            if self._open.pop(request, None) is not None:
                self._num_cancelled += output.is_cancelled
                self._finish(request)
        self._updates.append((output, Update(error=error)))

    def _abort(self, output: OutputQueue) -> None:
        if not output.requests:  # its text is being encoded
            output.is_cancelled = True
            self._end(output, EngineClosedError("the engine closed before the request began"))
        for request in output.requests:
            if request in self._open:
                self._finish(request)
                self._bring_forward(self._open[request], None)

    def _finish(self, request: Request, error: Exception | None = None) -> None:
        try:
            self.engine.finish(request, "error" if error else "abort", error)
        except Exception:
            logger.exception("the engine failed at the end of a request")

    def _update(self, result: StepResult) -> None:
        """Bring forward what a step has changed."""
        self._step_failed = False
        self._has_stepped = True
        step = self.engine.records[-1].step if self.engine.records else None
        for request in dict.fromkeys([*(b.request for b in result.grown), *result.finished]):
            if request in self._open:
                self._bring_forward(self._open[request], step)

    def _bring_forward(self, changed: _Open, step: int | None) -> None:
        """Bring a request's text up to its tokens; what raises here ends that request alone."""
        text, output, request = changed.text, changed.output, changed.text.request
        if output.is_dead:
            self._end(output, UsageError("the event loop was closed"))
            return
        update = Update(changed.index)
        try:
            for branch in text.catch_up():
                self.engine.finish_branch(branch, "stop")
            if output.streams:
                update.chunks = text.take(step)
        except BaseException as error:
            self._finish(request, _exception(error))
        if request.finished:
            del self._open[request]
            self._tell_end(update, text)
        if update.chunks or update.ends:
            self._updates.append((output, update))

    def _tell_end(self, update: Update, text: RequestText) -> None:
        try:
            update.error = text.request.error
            update.output = text.output(metrics(text.request))
        except Exception as error:
            update.error = error
        if update.output is not None and update.error is None:
            update.chunks = update.chunks or [StreamChunk("", ())]
            update.chunks[-1].output = update.output

    def _fail(self, error: Exception) -> None:
        """A step raised, and no request caused it."""
        if not self._step_failed:
            self._step_failed = True
            logger.error("a step failed, and no request caused it: they go on", exc_info=error)
            return
        logger.error("the engine failed; %d requests end with it", self.num_open, exc_info=error)
        for output in self._outputs():
            self._end(output, error)

    def _abort_all(self) -> None:
        """Python ends. Daemon threads are told nothing: they wait until they are gone."""
        for output in self._outputs():
            self._abort(output)
        self._updates = [(o, update) for o, update in self._updates if not o.is_daemons]

    def _outputs(self) -> list[OutputQueue]:
        return list(dict.fromkeys(o.output for o in self._open.values()))

    def _end_round(self) -> float | None:
        """Give idle memory back, tell the readers what came. Return seconds to sleep; None: on."""
        seconds: float | None = 0.0
        try:
            if not self.engine.has_unfinished:
                seconds = self.engine.reclaim()
        except Exception:
            logger.exception("the memory of idle blocks could not be given back")
            seconds = None
        updates, self._updates = self._updates, []
        ends = any(update.ends for _, update in updates)
        self.totals = self.engine.totals(self._num_cancelled, at_once=ends)
        for output, update in updates:
            output.put(update)
        if self._has_stepped and not self.engine.has_unfinished:
            self.at_rest.set()
        return seconds


def _run(
    me: weakref.ref[EngineLoop],
    inbox: Inbox,
    run_lock: threading.Lock,
    at_exit: Callable[[], None],
) -> None:
    """Do what comes in, and step the engine as long as something runs; end with the loop, or with
    Python. Between two rounds nothing here holds the loop."""
    with run_lock:  # were `start` broken off, there could be two of these
        seconds: float | None = 0.0
        while True:
            command = _next_command(inbox, seconds)
            loop = me()
            if loop is None:
                break
            try:
                while command is not None:
                    command(loop)
                    command = _next_command(inbox, 0)
                if loop.engine.has_unfinished:
                    loop._update(loop.engine.step())
            except BaseException as error:
                command = None
                loop._fail(_exception(error))
            seconds = loop._end_round()
            if loop._python_ends and not loop.engine.has_unfinished and inbox.empty():
                break
            del loop
    atexit.unregister(at_exit)


def _next_command(inbox: Inbox, seconds: float | None) -> Command | None:
    if seconds == 0 and inbox.empty():  # between two steps: an exception would cost more
        return None
    try:
        return inbox.get(timeout=seconds and min(seconds, threading.TIMEOUT_MAX))
    except queue.Empty:
        return None


def _end_with_python(me: weakref.ref[EngineLoop]) -> None:
    if (loop := me()) is not None and loop._process == os.getpid():
        loop._python_ends = True
        loop._inbox.put(EngineLoop._abort_all)
        with loop._run_lock:
            pass  # it has ended


def _exception(error: BaseException) -> Exception:
    """Return the error as an Exception, which readers can be told: a panic of Rust is none."""
    return error if isinstance(error, Exception) else RuntimeError(str(error))
