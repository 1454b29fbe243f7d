"""Terminals: one in the place of standard error, and one with a whole process in it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Sequence
from typing import Self

import pytest

# The first terminal that a session's leader opens is its own: there Ctrl-C is a signal.
_OWN_TERMINAL = """
import os, sys
os.close(os.open(os.ttyname(0), os.O_RDWR))
os.execv(sys.argv[1], sys.argv[1:])
"""
WAIT = 60  # seconds until a process that says nothing has failed


def sent_to_terminal(columns: int, call: Callable[[], object]) -> str:
    """What `call` writes to standard error where that is a terminal; a few lines at most."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    with open(reader, "rb", buffering=0) as terminal, open(writer, "w", encoding="utf-8") as stderr:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stderr", stderr)
            call()
        stderr.write("\0")
        stderr.flush()
        sent = b""
        while not sent.endswith(b"\0"):
            sent += terminal.read(1000)
    return sent[:-1].decode().replace("\r\n", "\n")


class Session:
    """`command` in a terminal of 80 columns, whose keyboard is `type`."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self._terminal, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _OWN_TERMINAL, *command],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            env=environment,
            start_new_session=True,
        )
        os.close(inside)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)

    def type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def until(self, text: str) -> str:
        """Wait for `text`; return what is shown up to it, and it."""
        shown = ""
        while not shown.endswith(text):
            assert select.select([self._terminal], [], [], WAIT)[0], f"no {text!r} after {shown!r}"
            shown += os.read(self._terminal, 1).decode("latin-1")
        return shown

    def end(self) -> int:
        """Wait until the process ends; return its exit code."""
        return self._process.wait(WAIT)
