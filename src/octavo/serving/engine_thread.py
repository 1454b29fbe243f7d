"""EngineThread: the thread that steps an AsyncEngine's requests; commands in, mailboxes out.

Sleeps when none of its requests is open, and then wakes for a command, or when memory has idled
long enough to go back: there is no polling. Commands (admit, withdraw, abort) run in turns of the
desk, before the next step, whichever thread makes it; one that an interrupt of that thread breaks
off runs again, from its beginning.

A step that raises has changed nothing that it did not finish, so the thread takes the next; but an
engine that raises in two steps on end fails: its open requests end with the error.

Knows no prompts and no HTTP; each mailbox knows its own event loop.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from octavo.errors import EngineClosedError, KernelError, OverloadedError, counted
from octavo.interrupts import is_interrupt
from octavo.request import RequestOutput
from octavo.serving.answer import Answer
from octavo.serving.answer_desk import AnswerDesk, Ask
from octavo.serving.bell import Bell
from octavo.serving.mailbox import Mailbox

logger = logging.getLogger(__name__)


class EngineThread:
    def __init__(self, desk: AnswerDesk, *, max_waiting: int) -> None:
        self._desk = desk
        self._max_waiting = max_waiting
        self._commands: deque[Callable[[], None]] = deque()
        self._bell = Bell()
        self._door = threading.Lock()  # of the next three; never held for longer than a look
        self._is_shut = False
        self._is_over = False  # Python ends
        self._open: dict[Mailbox, None] = {}
        self._mailboxes: dict[Answer, Mailbox] = {}  # of those in the engine; used in turns
        self._step_failed = False  # the last one
        self._ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._ended.set_running_or_notify_cancel()  # who stops waiting for it cancels only that
        self._thread = threading.Thread(target=self._run, name="octavo-engine", daemon=True)
        desk.attach(self)
        # Python must not end under a step: its thread could not come back from the native program.
        atexit.register(self._close)
        try:
            self._thread.start()
        except RuntimeError as error:  # the system gives no more
            atexit.unregister(self._close)
            desk.detach()
            raise KernelError(
                f"{error}, which an AsyncEngine needs: raise the limits (`ulimit -u`, `ulimit -v`)"
            ) from None

    def open(self, mailbox: Mailbox) -> None:
        """Take a place for a request; `submit` or `refuse` follows, from any thread. Raises
        EngineClosedError, OverloadedError."""
        with self._door:
            ended = self._is_over and threading.current_thread() is threading.main_thread()
            if self._is_shut or ended:
                raise EngineClosedError(
                    "the engine is closed and takes no new requests: make a new AsyncEngine"
                )
            if not (self._is_over or self._thread.is_alive()):
                raise EngineClosedError(
                    "the engine's thread stayed in the process that this one was forked from: make "
                    "the LLM and its AsyncEngine in this one"
                )
            waiting = sum(m.is_waiting for m in self._open)
            if waiting >= self._max_waiting:
                raise OverloadedError(
                    f"{counted(waiting, 'request')} in the queue, and at most "
                    f"{self._max_waiting:,} may wait: try again later, or raise max_waiting"
                )
            self._open[mailbox] = None

    def submit(self, mailbox: Mailbox, ask: Ask) -> None:
        """Queue what a place was taken for."""
        self._command(partial(self._admit, mailbox, ask))

    def refuse(self, mailbox: Mailbox, error: Exception) -> None:
        """Give the place back, and the reader the error."""
        self._command(partial(self._refuse, mailbox, error))

    def withdraw(self, mailbox: Mailbox) -> None:
        """Nobody reads it any more. Never waits; the garbage collector may call it."""
        mailbox.is_withdrawn = True
        self._command(partial(self._withdraw, mailbox))

    def shut(self) -> None:
        """No new requests; the thread ends when those that are open have."""
        with self._door:
            self._is_shut = True
        self._bell.ring()

    def forsake(self) -> None:
        """`shut` where nobody is left to submit. The garbage collector may call it."""
        self._is_shut = True
        self._bell.ring()

    def abort_all(self) -> None:
        """After `shut`: end what is open with what it has."""
        with self._door:
            for mailbox in self._open:
                self._command(partial(self._abort, mailbox))

    async def join(self) -> None:
        """After `shut`: wait for the end of the thread."""
        await asyncio.wrap_future(self._ended)
        self._thread.join()  # nothing is left for it to do

    def _close(self) -> None:
        """Python ends: so does the thread, after its step. Only daemon threads can still wait for
        answers, and they wait until they are gone too."""
        self._is_over = True
        self._bell.ring()
        self._thread.join()

    def take_in(self) -> None:
        while self._commands:
            try:
                self._commands[0]()
            except Exception as error:  # the turn may be of a thread that has nothing to do with it
                if is_interrupt(error):
                    raise
                logger.exception("the engine failed at the end of a request")
            self._commands.popleft()

    def changed(self, answer: Answer) -> None:
        mailbox = self._mailboxes.get(answer)
        if mailbox is None:
            return  # not of this door
        if mailbox.is_dead:
            self._withdraw(mailbox)
            return
        if answer.done:
            mailbox.tell(self._outcome(answer))
            self._forget(mailbox)
        elif mailbox.streams:
            mailbox.tell()

    def rest(self, seconds: float | None) -> None:
        self._bell.set(seconds)

    def _command(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        self._bell.ring()

    def _run(self) -> None:
        try:
            while not self._is_over:
                self._bell.forget()  # before the look at what it rang for
                if self._mailboxes or self._commands:
                    self._step()
                elif self._is_shut and not self._open:
                    return
                elif self._bell.sleep():
                    self._step()
        finally:
            atexit.unregister(self._close)
            self._desk.detach()
            self._ended.set_result(None)

    def _step(self) -> None:
        try:
            self._desk.step()
            self._step_failed = False
        except Exception as error:
            if not self._step_failed:
                self._step_failed = True
                logger.exception("a step failed, and no request caused it: they go on")
                return
            mailboxes = list(self._mailboxes.values())
            logger.exception("the engine failed; %d requests end with its error", len(mailboxes))
            for mailbox in mailboxes:
                self._command(partial(self._fail, mailbox, error))

    def _admit(self, mailbox: Mailbox, ask: Ask) -> None:
        if mailbox.is_withdrawn or mailbox.answer in self._mailboxes:
            return
        try:
            mailbox.answer = self._desk.admit(ask)
        except Exception as error:
            if is_interrupt(error):
                raise
            self._refuse(mailbox, error)
        else:
            self._mailboxes[mailbox.answer] = mailbox

    def _refuse(self, mailbox: Mailbox, error: Exception) -> None:
        self._forget(mailbox)
        mailbox.tell(error)

    def _withdraw(self, mailbox: Mailbox) -> None:
        try:
            if mailbox.answer is not None:
                self._desk.end(mailbox.answer)
        finally:
            self._forget(mailbox)

    def _abort(self, mailbox: Mailbox) -> None:
        answer = mailbox.answer
        if answer in self._mailboxes:
            self._desk.end(answer)
            self.changed(answer)
        elif mailbox in self._open:  # its text is being encoded
            mailbox.is_withdrawn = True
            self._refuse(mailbox, EngineClosedError("the engine closed before the request began"))

    def _fail(self, mailbox: Mailbox, error: Exception) -> None:
        if mailbox.answer in self._mailboxes:
            mailbox.tell(error)
            self._withdraw(mailbox)

    def _forget(self, mailbox: Mailbox) -> None:
        with self._door:
            self._open.pop(mailbox, None)
        if mailbox.answer is not None:
            self._mailboxes.pop(mailbox.answer, None)

    def _outcome(self, answer: Answer) -> RequestOutput | Exception:
        try:
            return answer.request.error or self._desk.output(answer)
        except Exception as error:
            if is_interrupt(error):
                raise
            return error
