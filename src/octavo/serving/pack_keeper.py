"""PackKeeper: writes the packed weights of a model for its next start, when nobody waits.

A thread of its own writes a slice at a time, and only while no request runs: from the end of the
first answer on, so that it never delays a token. When the LLM is gone, or Python ends, it writes
what is left, or nothing if there was no answer. Ctrl-C then gives up, and leaves nothing behind.

Knows when to write; what and where is the pack cache's matter.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading

from octavo.loaded_model import Pack

logger = logging.getLogger(__name__)

_LONG = 1 << 30  # bytes whose writing at Python's end takes seconds, which is said


class _GivenUp(Exception):
    pass


class PackKeeper:
    def __init__(self, pack: Pack, at_rest: threading.Event) -> None:
        """`at_rest` is set while no request runs, but not before the first has run. What `end`s
        this holds nothing of the loop that owns it."""
        self._pack: Pack | None = pack
        self._nbytes = pack.weights.nbytes()
        self._at_rest = at_rest
        self._begun = False  # there was an answer
        self._ends = False  # nobody asks for more tokens
        self._given_up = False
        self.ended = threading.Event()  # nothing is written any more
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._keep, name="octavo-keeper", daemon=True)

    def start(self) -> None:
        """Without a thread nothing is kept."""
        atexit.register(self.end_with_python)
        try:
            self._thread.start()
        except RuntimeError:  # the system gives no more
            self._drop()

    def end(self) -> None:
        """Say that no more requests come: what is begun is written at once. Never waits."""
        if self._process != os.getpid():  # forked: the thread, and who had the lock, are not here
            return
        if not self._at_rest.is_set() and not self._begun:
            self._given_up = True
        self._ends = True
        self._at_rest.set()

    def _keep(self) -> None:
        pack = self._pack
        assert pack is not None
        try:
            with contextlib.suppress(_GivenUp):
                pack.file.write(pack.weights, self._wait)
        except Exception:
            logger.exception("the packed weights could not be kept")
        finally:
            del pack
            self._drop()
            self.ended.set()

    def _wait(self) -> None:
        if not self._ends:
            self._at_rest.wait()
            self._begun = True
        if self._given_up:
            raise _GivenUp

    def _drop(self) -> None:
        self._pack = None
        atexit.unregister(self.end_with_python)

    def end_with_python(self) -> None:
        """Wait until what is begun is written; Ctrl-C gives it up."""
        if self._process != os.getpid():  # the thread stayed in the process that was forked from
            return
        try:
            self.end()
            if self._nbytes > _LONG and not self._given_up and self._thread.is_alive():
                logger.warning(
                    "keeping %.1f GiB of packed weights for the next start; Ctrl-C leaves that out",
                    self._nbytes / 2**30,
                )
            self.ended.wait()  # Thread.join, once broken off, takes the thread for ended
        except BaseException as error:
            self._given_up = True
            self.ended.wait()
            if not isinstance(error, KeyboardInterrupt | SystemExit):  # Python ends as it is
                raise
