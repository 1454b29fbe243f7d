"""Raise an exception at any line of the engine or the cache while a call runs: what Ctrl-C may do,
and what a bug at that line would do.

Python's own tracing tells each line before it runs, so an exception raised there is one between two
lines.
"""

from __future__ import annotations

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


def call_raising(call: Callable[[], object], error: BaseException, at: Chooser) -> bool:
    """Make a call and raise `error` at the first line that `at` chooses. False: it chose none. What
    else the call raises comes through. Ctrl-C must reach the caller."""
    raised, came = False, False

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal raised
        if not frame.f_code.co_filename.startswith(_TRACED):
            return None
        if event == "line" and not raised and at((frame.f_code, frame.f_lineno)):
            raised = True
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
    assert came == raised or isinstance(error, RuntimeError), "it was swallowed"
    return raised
