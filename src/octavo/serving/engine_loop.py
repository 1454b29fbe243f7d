"""EngineLoop: the one thread that steps the engine, for everybody who waits for answers.

Commands come in through one inbox, from any thread, and are done between two steps, in their order;
what a step gave goes to the `Readers`, who are told of it at the end of each round.

1. The thread starts with the first command and holds the loop only while it works: with the loop
   it is gone. It sleeps until a command comes or idle memory can go back to the system.
2. `cancel` and `soon` never wait and take no lock: the garbage collector may call them anywhere.
3. What breaks off a waiting caller, Ctrl-C too, never meets a step.
4. A step that raises has changed nothing that it did not finish, so the next is tried; when that
   raises too, all open requests end with the error.
5. When Python ends, open requests end, and the thread after its step. What the main thread asks
   later is done there.

Knows when the engine steps; knows no text and no event loops.
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
from functools import partial
from typing import TypeVar

from octavo.engine.engine import Engine
from octavo.engine.step import StepResult
from octavo.errors import EngineClosedError, KernelError, UsageError
from octavo.serving.output_queue import OutputQueue
from octavo.serving.prepare import PreparedRequest
from octavo.serving.promise import promise
from octavo.serving.readers import Readers, as_exception
from octavo.tokenizer import Tokenizer

T = TypeVar("T")
Command = Callable[["EngineLoop"], None]
Inbox = queue.SimpleQueue[Command | None]  # None: nothing to do but to look whether to end

logger = logging.getLogger(__name__)


class EngineLoop:
    def __init__(self, engine: Engine, tokenizer: Tokenizer) -> None:
        self.engine = engine  # others than the thread only look at its counts and records
        self.totals = engine.totals()  # of all whose end was told, and of others 50 ms ago at most
        self.tokenizer = tokenizer
        self._readers = Readers(engine, tokenizer)
        self._inbox: Inbox = queue.SimpleQueue()
        self.at_rest = threading.Event()  # no request runs, and one has run
        self._has_stepped = False
        self._step_failed = False  # the last one
        self._python_ends = False
        self._process: int | None = None  # in which the thread was started
        self._start_lock = threading.RLock()  # who has it may be called in a signal handler
        self._run_lock = threading.Lock()  # of who runs, or waits for the end of who does
        weakref.finalize(self, self._inbox.put, None).atexit = False

    @property
    def num_open(self) -> int:
        """Requests that have not ended."""
        return self._readers.num_open

    @property
    def backlog(self) -> int:
        """How many commands wait for the end of a step."""
        return self._inbox.qsize()

    def submit(self, output: OutputQueue, requests: Sequence[PreparedRequest]) -> None:
        """Queue all of the requests or none. What the engine refuses is raised to the reader.
        Raises EngineClosedError in a forked process, KernelError where no thread can be had."""
        self._send(lambda loop: loop._submit(output, requests))

    def cancel(self, output: OutputQueue) -> None:
        """End the requests of a queue that nobody reads any more."""
        output.is_cancelled = True
        self.soon(lambda loop: loop._readers.end(output, UsageError("the stream was closed")))

    def abort(self, output: OutputQueue) -> None:
        """End its requests with what they have."""
        self.soon(lambda loop: loop._readers.abort(output))

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
        # Python must not end under a step, nor while the thread lets go of the last that holds an
        # engine: it could not come back from native code.
        me = weakref.ref(self)
        self._at_exit = partial(_end_with_python, me, self._run_lock, os.getpid())
        self._run = partial(_run, me, self._inbox, self._run_lock, self._at_exit)
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
        if not output.is_cancelled:
            self.at_rest.clear()
            self._readers.add(output, requests)

    def _bring_forward(self, result: StepResult) -> None:
        self._step_failed = False
        self._has_stepped = True
        self._readers.bring_forward(result)

    def _fail(self, error: Exception) -> None:
        """A step raised, and no request caused it."""
        if not self._step_failed:
            self._step_failed = True
            logger.error("a step failed, and no request caused it: they go on", exc_info=error)
            return
        logger.error("the engine failed; %d requests end with it", self.num_open, exc_info=error)
        self._readers.end_all(error)

    def _end_round(self) -> float | None:
        """Give idle memory back, tell the readers what came. Return seconds to sleep; None: on."""
        seconds: float | None = 0.0
        try:
            if not self.engine.has_unfinished:
                seconds = self.engine.reclaim()
        except Exception:
            logger.exception("the memory of idle blocks could not be given back")
            seconds = None
        readers = self._readers
        self.totals = self.engine.totals(readers.num_cancelled, at_once=readers.some_end)
        readers.tell()
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
                    loop._bring_forward(loop.engine.step())
            except BaseException as error:
                command = None
                loop._fail(as_exception(error))
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


def _end_with_python(me: weakref.ref[EngineLoop], run_lock: threading.Lock, process: int) -> None:
    if process != os.getpid():  # the thread stayed in the process that was forked from
        return
    if (loop := me()) is not None:
        loop._python_ends = True
        loop._inbox.put(lambda loop: loop._readers.abort_all())
    with run_lock:
        pass  # it has ended
