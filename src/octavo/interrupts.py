"""Which exceptions come from outside the code that they break off, so that nothing there is to
blame: Ctrl-C, and what a Python signal handler raises (a time-out by `signal.alarm`, say).

Knows signals and tracebacks only.
"""

from __future__ import annotations

import signal
import traceback


def is_interrupt(error: BaseException) -> bool:
    """Whether `error`, just caught, was no fault of the code it was raised in."""
    if not isinstance(error, Exception):
        return True
    handlers = [signal.getsignal(s) for s in signal.valid_signals()]
    codes = {getattr(h, "__code__", None) for handler in handlers for h in _callables(handler)}
    return any(frame.f_code in codes for frame, _ in traceback.walk_tb(error.__traceback__))


def _callables(handler: object) -> tuple[object, ...]:
    """What may run: a function or method itself, or the method that makes an object callable."""
    return handler, getattr(type(handler), "__call__", None)  # noqa: B004
