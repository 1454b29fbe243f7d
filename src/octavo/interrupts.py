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
    handlers = (getattr(signal.getsignal(s), "__code__", None) for s in signal.valid_signals())
    codes = {code for code in handlers if code is not None}
    return any(frame.f_code in codes for frame, _ in traceback.walk_tb(error.__traceback__))
