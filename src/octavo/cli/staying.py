"""`staying`: what is imported stays until the end of the process, so the garbage collector, which
would walk all of it again and again, leaves it alone.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def staying() -> Iterator[None]:
    """Import what is needed in here, and make nothing else."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
