"""The probe of a real machine: the compiled core's loops, on as many threads as the engine has."""

from __future__ import annotations

import time

import numpy as np

from octavo.bench.machine import Reading
from octavo.kernels import native, thread_pool

_BUFFER_BYTES = 256 * 2**20  # more than any cache a few cores share
_READ_REPEATS = 2
_SPIN_SECONDS = 0.03
_TRIAL = 20_000  # iterations that tell how many take that long


class NativeProbe:
    def __init__(self, isa: str, threads: int) -> None:
        self._isa = isa
        self._pool = thread_pool(threads)
        self._buffer = np.ones(_BUFFER_BYTES, np.uint8)  # written, so that it is memory, not zeros

    def read(self) -> Reading:
        """About a tenth of a second."""
        start = time.perf_counter()
        native.integer_peak(self._isa, self._pool, _TRIAL)  # wakes the threads, too
        trial = max(time.perf_counter() - start, 1e-6)
        iterations = max(_TRIAL, int(_TRIAL * _SPIN_SECONDS / trial))
        return Reading(
            bytes_per_second=native.read_bandwidth(
                self._isa, self._pool, self._buffer, _READ_REPEATS
            ),
            ops_per_second=native.integer_peak(self._isa, self._pool, iterations),
        )
