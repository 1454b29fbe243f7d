"""Raise an exception at any line of the engine or the cache while a call runs: what Ctrl-C may do,
what the handler of a signal may do, and what a bug at that line would do.

Python's own tracing tells each line before it runs, so an exception raised there is one between two
lines.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import octavo

_ROOT = Path(octavo.__file__).parent
_TRACED = tuple(str(_ROOT / folder) for folder in ("engine", "kv_cache"))

Line = tuple[CodeType, int]
Chooser = Callable[[Line], bool]


class AlarmError(Exception):
    """`call_raising` lets the handler of a signal raise it."""


def call_raising(call: Callable[[], object], error: BaseException, at: Chooser) -> bool:
    """Make a call and raise `error` at the first line that `at` chooses. False: it chose none. What
    else the call raises comes through. Ctrl-C and what a handler raises must reach the caller."""
    raised, came = False, False

    def handler(*_: object) -> None:
        raise error

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal raised
        if not frame.f_code.co_filename.startswith(_TRACED):
            return None
        if event == "line" and not raised and at((frame.f_code, frame.f_lineno)):
            raised = True
            if isinstance(error, AlarmError):
                signal.raise_signal(signal.SIGALRM)
            raise error
        return trace

    before, handler_before = sys.gettrace(), signal.signal(signal.SIGALRM, handler)
    sys.settrace(trace)
    try:
        call()
    except type(error) as caught:
        if caught is not error:
            raise
        came = True
    finally:
        sys.settrace(before)
        signal.signal(signal.SIGALRM, handler_before)
    assert came == raised or isinstance(error, RuntimeError), "it was swallowed"
    return raised
