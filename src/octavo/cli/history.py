"""What was typed in chats, oldest first, kept in a file for the next time. Knows no terminal.

A text is a JSON string on a line of its own, since it may have several lines; its owner alone may
read the file. One that cannot be read or written must not end a chat, which then goes without.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from octavo.atomic_file import write_whole

KEPT = 1000  # texts; a file that holds twice as many is cut to the last of them


def load(path: Path) -> list[str]:
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        if len(lines) > 2 * KEPT:
            write_whole(path, "".join(lines[-KEPT:]).encode())
    texts = []
    for line in lines[-KEPT:]:
        with contextlib.suppress(ValueError):  # half a line, where a write was broken off
            texts.append(json.loads(line))
    return [text for text in texts if isinstance(text, str)]


def append(path: Path, text: str) -> None:
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(json.dumps(text) + "\n")
