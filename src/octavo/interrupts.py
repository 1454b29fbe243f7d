"""Which exceptions come from outside the code that they break off, so that nothing there is to
blame: Ctrl-C, and what a Python signal handler raises (a time-out by `signal.alarm`, say).

Knows signals and tracebacks only.
"""

from __future__ import annotations

import signal
import traceback
from itertools import pairwise
from types import FrameType


def is_interrupt(error: BaseException) -> bool:
    """Whether `error`, just caught, was no fault of the code it was raised in."""
    if not isinstance(error, Exception):
        return True
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if len(frames) < 2:  # raised by the very frame that caught it: no handler ran
        return False
    handlers = [signal.getsignal(s) for s in signal.valid_signals()]
    codes = {getattr(h, "__code__", None) for handler in handlers for h in _callables(handler)}
    return any(f.f_code in codes or _handles(f, before) for before, f in pairwise(frames))


def _callables(handler: object) -> tuple[object, ...]:
    """Return what may run: a function or method itself, or the method that makes an object
    callable."""
    return handler, getattr(type(handler), "__call__", None)  # noqa: B004


def _handles(frame: FrameType, before: FrameType) -> bool:
    """A handler is given the frame that it interrupts, by however many wrappers, and after it made
    way for another one too."""
    for value in frame.f_locals.values():
        if value is before or (isinstance(value, tuple) and any(v is before for v in value)):
            return True
    return False
