"""AnswerDesk: the one place where the engine is stepped, for all who wait for answers.

Callers of LLM step it until their own answers are done, the thread of an AsyncEngine as long as one
of its own is open; whoever steps brings every answer forward.

1. Threads have their turn in the order in which they asked: one that steps in a loop keeps another
   waiting for one step, never for its whole answer.
2. To end an answer waits for no step: the thread that next has its turn does it before it steps.
   What a finalizer may call takes no lock that it would have to wait for, starts no thread, and
   does nothing once Python ends.
3. When nothing runs, memory that idles goes back to the system, now or when it has idled enough.

Knows tokens and text, no prompts and no event loops.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from octavo.engine.engine import Engine, StepResult
from octavo.errors import UsageError
from octavo.interrupts import is_interrupt
from octavo.request import FinishReason, Request, RequestOptions, RequestOutput
from octavo.sampling_params import SamplingParams
from octavo.serving.answer import Answer
from octavo.serving.bell import Bell
from octavo.tokenizer import Tokenizer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt that was checked, and what is wanted of it."""

    tokens: Sequence[int]
    params: SamplingParams
    options: RequestOptions


class Watcher(Protocol):
    """Who stays by the desk. Each is called in a turn, by whichever thread has it."""

    def take_in(self) -> None:
        """A step may follow: admit and end what came since the last."""

    def changed(self, answer: Answer) -> None:
        """It has new tokens, or is done; told again where an interrupt broke it off."""

    def rest(self, seconds: float | None) -> None:
        """Nothing runs. In so many seconds memory has idled enough: step then. None: never."""


class AnswerDesk:
    def __init__(self, engine: Engine, tokenizer: Tokenizer) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._open: dict[Request, Answer] = {}  # of every door
        self._abandoned: deque[Answer] = deque()
        self._missed = False  # a step raised before all its answers were brought forward
        self._watcher: Watcher | None = None
        self._alarm = Alarm(self)
        self._lock = threading.Lock()  # whose thread has its turn
        self._queue = threading.Lock()
        self._last = threading.Lock()  # of the thread that asked last: held until its turn is over
        weakref.finalize(self, self._alarm.end)

    @property
    def num_open(self) -> int:
        """Answers that have not ended."""
        return sum(not answer.done for answer in self._open.values())

    def add(self, asks: Iterable[Ask], answers: list[Answer]) -> None:
        """Queue all or none; `answers` gets theirs, to be abandoned even where this is broken off.
        Raises UsageError, and OutOfMemoryError if one can never fit."""

        def admit_all() -> None:
            try:
                for ask in asks:
                    answers.append(self.admit(ask))
            except BaseException:
                for answer in answers:
                    self.end(answer)
                raise

        self._in_turn(admit_all)

    def step(self) -> None:
        """One step of whatever runs; its answers take in their tokens."""
        self._in_turn(self._step)

    def alone(self, work: Callable[[], T]) -> T:
        """Run what needs the engine for itself; nobody steps meanwhile."""
        return self._in_turn(work)

    def abandon(self, answers: Iterable[Answer]) -> None:
        """End what nobody waits for. Never waits for a turn: the garbage collector may close a
        stream inside a step of the same thread."""
        self._abandoned.extend(answers)
        if sys.is_finalizing():
            return  # half of Python is gone, and with it goes the rest
        # A loop takes the lock: no signal handler runs between it and `try`, as after a call.
        for _ in iter(partial(self._lock.acquire, False), False) if self._abandoned else ():
            try:
                self._end_abandoned()
                self._rest()
            finally:
                self._lock.release()
            if not self._abandoned:
                return

    def output(self, answer: Answer) -> RequestOutput:
        """Of an answer that is done."""
        return answer.output(self._engine.metrics(answer.request))

    def attach(self, watcher: Watcher) -> None:
        """From now on it is told what happens here, and cares for idle memory in place of a timer.
        Raises UsageError: there is room for one."""

        def work() -> None:
            if self._watcher is not None:
                raise UsageError(
                    "this LLM has an AsyncEngine: share it, or close it before you make another"
                )
            self._alarm.bell.set(None)
            self._watcher = watcher

        self._in_turn(work)

    def detach(self) -> None:
        def work() -> None:
            self._watcher = None

        self._in_turn(work)

    def admit(self, ask: Ask) -> Answer:
        """`add` one, in a turn."""
        try:
            request = self._engine.add(ask.tokens, ask.params, ask.options)
            answer = self._open[request] = Answer(request, self._tokenizer)
            return answer
        except BaseException:
            self._engine.retain(self._open)
            raise

    def end(self, answer: Answer, reason: FinishReason = "abort") -> None:
        """End an answer early, in a turn."""
        if not answer.done:
            self._engine.finish(answer.request, reason)
            self._catch_up(answer)
        self._open.pop(answer.request, None)

    def _in_turn(self, work: Callable[[], T]) -> T:
        """Only `_lock` keeps turns apart; a thread that Ctrl-C takes out of the queue thereby
        harms no more than the order."""
        mine = threading.Lock()
        try:
            with mine:
                with self._queue:
                    before, self._last = self._last, mine
                with before:
                    pass
                with self._lock:
                    self._alarm.start()
                    self._end_abandoned()
                    if self._watcher is not None:
                        self._watcher.take_in()
                    result = work()
                    self._rest()
                    return result
        finally:
            self.abandon(())  # those that came since

    def _step(self) -> None:
        missed, self._missed = self._missed, True
        result = self._engine.step() if self._engine.has_unfinished else StepResult()
        changed = dict.fromkeys([*(s.request for s in result.grown), *result.finished])
        for request in list(self._open) if missed else changed:
            answer = self._open.get(request)
            if answer is None:
                continue
            self._catch_up(answer)
            if self._watcher is not None:
                self._watcher.changed(answer)
            if answer.done:  # and all who watch know it
                self._open.pop(request, None)
        self._missed = False

    def _catch_up(self, answer: Answer) -> None:
        """Bring an answer up to its tokens. What raises here is about its text and ends it alone,
        unless it is an interrupt."""
        request = answer.request
        try:
            for branch in answer.catch_up():
                self._engine.finish_branch(branch, "stop")
            if request.finished:
                answer.finish()
        except Exception as error:
            if is_interrupt(error):
                raise
            self._engine.finish(request, "error")
            answer.fail(error)

    def _end_abandoned(self) -> None:
        while self._abandoned:
            try:
                self.end(self._abandoned[0])
            except BaseException as error:
                if not is_interrupt(error):  # else the next turn ends it
                    self._abandoned.popleft()
                raise
            self._abandoned.popleft()

    def _rest(self) -> None:
        if self._engine.has_unfinished:
            return
        seconds = self._engine.reclaim()
        if self._watcher is not None:
            self._watcher.rest(seconds)
        else:
            self._alarm.bell.set(seconds)


class Alarm:
    """A clock for a desk where nothing runs: a thread that sleeps until memory has idled enough. It
    keeps neither the desk nor the process alive."""

    def __init__(self, desk: AnswerDesk) -> None:
        self.bell = Bell()
        self._desk = weakref.ref(desk)
        self._is_over = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Before the bell is first set; a later call does nothing. Not for finalizers."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="octavo-idle", daemon=True)
            with suppress(RuntimeError):  # none may start any more: the next turn gives memory back
                self._thread.start()

    def end(self) -> None:
        self._is_over = True
        self.bell.ring()

    def ring(self) -> None:
        desk = self._desk()
        if desk is not None:
            desk.alone(lambda: None)

    def _run(self) -> None:
        while not self._is_over:
            if self.bell.sleep():
                self.ring()
