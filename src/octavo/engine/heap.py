"""What the C library keeps of freed memory, and its way back to the system.

glibc gives back the end of a heap alone: after a crowd of requests one small object that lives on
there holds all that was freed below it. Knows neither whose memory it was nor when nobody works.
"""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Give what is free back to the system; another C library than glibc does so by itself."""
    if _trim is not None:
        _trim(0)


_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
