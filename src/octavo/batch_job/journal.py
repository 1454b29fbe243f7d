"""The journal of a batch: each result as soon as it is there, so that a killed run can go on.

A file of JSON lines beside the output. The first says what the results come from; each other is
{"key": …, "result": …}. Lines are handed to the system one by one and synced every few seconds: a
killed process loses nothing, a power cut the last seconds. The end that a kill tore is cut off. One
process at a time holds the file.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from octavo.errors import UsageError

_HEADER = "octavo_batch"
_BEGIN = b'{"octavo_batch": '  # of every journal, whatever was torn off
_SYNC_SECONDS = 5.0

Origin = Mapping[str, str]  # what the results depend on beside the request: name -> value


class Journal:
    """Open it with what results now come from; one of other origin is refused."""

    def __init__(
        self, path: Path, origin: Origin, digest: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = path
        self.input_changed = False
        self._places: dict[bytes, tuple[int, int]] = {}  # key -> start and length of its line
        self._clock = clock
        self._synced = clock()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        try:
            self._lock()
            self._load(origin, digest)
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    def add(self, key: bytes, result: Mapping[str, object]) -> None:
        place = self._append({"key": key.hex(), "result": result})
        self._places[key] = place
        now = self._clock()
        if now >= self._synced + _SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = now

    def result(self, key: bytes) -> dict[str, Any]:
        start, length = self._places[key]
        found = json.loads(os.pread(self._file.fileno(), length, start))["result"]
        assert isinstance(found, dict)
        return found

    def close(self) -> None:
        """Keep it for the next run, if there is anything to keep."""
        if self._file.closed:
            return
        if not self._places:
            self.remove()
            return
        os.fsync(self._file.fileno())
        self._file.close()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{self.path} is held by another run: wait for it, or choose another output"
            ) from None

    def _load(self, origin: Origin, digest: str) -> None:
        with open(self._file.fileno(), "rb", closefd=False) as lines:
            before, end = self._read(lines)
        self._file.truncate(end)
        if before is not None:
            self._check_origin(before["origin"], origin)
            self.input_changed = before["input"] != digest
        if before is None or self.input_changed:
            self._append({_HEADER: 1, "origin": dict(origin), "input": digest})

    def _read(self, lines: BinaryIO) -> tuple[dict[str, Any] | None, int]:
        """Note where each result is. Returns the last header, and where the last whole line
        ends."""
        header, end = None, 0
        for text in lines:
            line = _whole_line(text)
            if line is None:
                break
            if _HEADER in line:
                header = line
            elif header is not None:
                self._places[bytes.fromhex(line["key"])] = (end, len(text))
            else:
                raise self._foreign()
            end += len(text)
        if header is None and not _BEGIN.startswith(os.pread(lines.fileno(), len(_BEGIN), 0)):
            raise self._foreign()
        return header, end

    def _foreign(self) -> UsageError:
        return UsageError(f"{self.path} is no journal of a batch: move it away")

    def _check_origin(self, before: Origin, now: Origin) -> None:
        for name in sorted({*before, *now}):
            old, new = before.get(name, "the default"), now.get(name, "the default")
            if old != new:
                raise UsageError(
                    f"{self.path} was begun with {name} = {old}, and this run has {new}: run with "
                    "the same, or delete that file to begin again"
                )

    def _append(self, line: Mapping[str, object]) -> tuple[int, int]:
        """A disk that fills up must not leave half a line that later ones are glued to."""
        data = json.dumps(line, allow_nan=False).encode() + b"\n"
        start = self._file.seek(0, os.SEEK_END)
        written = 0
        try:
            while written < len(data):
                written += self._file.write(data[written:])
        except OSError:
            self._file.truncate(start)
            raise
        return start, len(data)


def _whole_line(text: bytes) -> dict[str, Any] | None:
    """None for what a kill or a power cut left of a line."""
    try:
        line = json.loads(text) if text.endswith(b"\n") else None
    except ValueError:
        return None
    return line if isinstance(line, dict) and (_HEADER in line or "key" in line) else None
