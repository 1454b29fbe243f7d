"""A stream of text that is written aside: who writes a line never waits for its reader.

A server's lines go through it: a full disk, a pipe that nobody reads and a reader that has gone
lose lines, and stop no answer. Knows one file descriptor, and no words but those on lost lines.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import threading
from typing import TextIO

MOST = 10_000  # texts that wait to be written
_LAST_SECONDS = 1.0  # that they have at the end


class Aside(io.TextIOBase):
    def __init__(self, stream: TextIO) -> None:
        """Write to what `stream` writes to; nobody else does until this one is closed."""
        stream.flush()
        # Its own: what is still written when the stream is closed must not reach another file.
        self._fd, self._encoding = os.dup(stream.fileno()), stream.encoding
        self._texts: queue.Queue[str | None] = queue.Queue(MOST)
        self._num_lost = 0
        self._thread = threading.Thread(target=self._write_all, name="octavo-lines", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        try:
            self._texts.put_nowait(text)
        except queue.Full:
            self._num_lost += 1
        return len(text)

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        """What waits is written, if its reader takes it soon."""
        if not self.closed:
            self._put_end()
            self._thread.join(_LAST_SECONDS)
            super().close()

    def _put_end(self) -> None:
        while True:
            try:
                self._texts.put_nowait(None)
                return
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    self._texts.get_nowait()

    def _write_all(self) -> None:
        while (text := self._texts.get()) is not None:
            lost, self._num_lost = self._num_lost, 0
            if lost:
                text = f"octavo: {lost:,} lines were lost: nobody took them in time\n{text}"
            with contextlib.suppress(OSError):  # its reader has gone, or there is no room
                self._write(text.encode(self._encoding, "replace"))
        os.close(self._fd)

    def _write(self, data: bytes) -> None:
        """Not by the stream, whose lock the end of the process would wait for."""
        while data:
            data = data[os.write(self._fd, data) :]
