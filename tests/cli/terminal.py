"""A terminal of a given width in the place of standard error."""

from __future__ import annotations

import fcntl
import pty
import struct
import sys
import termios
from collections.abc import Callable

import pytest


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
