"""Raise an exception at any line of the engine or the cache while a call runs, or in a method of
theirs: what Ctrl-C may do, and what a bug there would do.

Python's own tracing tells each line before it runs, so an exception raised there is one between two
lines.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from itertools import count
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import octavo

_ROOT = Path(octavo.__file__).parent
_TRACED = tuple(str(_ROOT / folder) for folder in ("engine", "kv_cache"))

Line = tuple[CodeType, int]


def call_raising(
    call: Callable[[], object], error: BaseException, at: Callable[[Line], bool]
) -> Line | None:
    """Make a call and raise `error` at the first line that `at` chooses; return that line. None: it
    chose none. What else the call raises comes through. Ctrl-C must reach the caller."""
    raised: Line | None = None
    came = False

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal raised
        if event == "call":  # what is not traced has no other events
            return trace if frame.f_code.co_filename.startswith(_TRACED) else None
        if event == "line" and raised is None and at(line := (frame.f_code, frame.f_lineno)):
            raised = line
            raise error
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except type(error) as caught:
        if caught is not error:
            raise
        came = True
    finally:
        sys.settrace(before)
    assert came == (raised is not None) or isinstance(error, RuntimeError), "it was swallowed"
    return raised


@contextmanager
def fault(
    owner: object, part: str, kind: type[BaseException] = RuntimeError, *, nth: int = 1,
    after: bool = False,
) -> Iterator[list[BaseException]]:  # fmt: skip
    """Let a part of `owner`, a method named by its dots, raise at its nth call, before its work or
    after it. What it raised comes into the list."""
    *path, name = part.split(".")
    owner = reduce(getattr, path, owner)
    real, calls, raised = getattr(owner, name), count(1), []

    def faulty(*args: Any, **options: Any) -> Any:
        is_due = next(calls) == nth
        if is_due:
            raised.append(kind("injected"))
        if is_due and not after:
            raise raised[0]
        result = real(*args, **options)
        if is_due:
            raise raised[0]
        return result

    setattr(owner, name, faulty)
    try:
        yield raised
    finally:
        setattr(owner, name, real)
