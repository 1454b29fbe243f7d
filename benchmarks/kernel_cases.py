"""What is timed of the kernels of one ISA level: each case a kernel at a size, and the limit of the
machine that it is held against.

Knows the compiled core and sizes that stay in a core's caches. One thread. Knows nothing of rounds,
tables or what was measured before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from octavo.kernels import KV_FORMATS, native

INTEGER_FORMATS = (
    *("W8", "W4S", "W4A", "W5S", "W5A", "W4K", "W5K", "W6K", "W2K", "W3K", "W4T", "W4TK", "W4F"),
)
HEIGHT, WIDTH = 256, 768  # rows and columns of a weight
ROWS = (1, 6, 48, 512)
CONTEXT, GROUP = 2048, 3  # tokens attended to; query heads of the KV head
PREFILL, DECODE = 16, 1  # query tokens
DIMS = (64, 128)  # of heads, in every format of K and V
WIDE_DIMS = ((512, 512), (576, 512))  # of K and of V: Gemma 4's full layers, DeepSeek-V2's latent
WIDE_FORMATS = ("bf16", "int8")
MOST_SECONDS = 0.002  # of one timing, or one call if that takes longer
LONG_SECONDS = 0.001  # of a call in which another process may have its turn


@dataclass(frozen=True)
class Case:
    """`seconds` is the least time of one call; `work` what a call does, in what `limit` counts."""

    kernel: str
    limit: str  # int8, f32, bf16: operations a second in registers; read: bytes from cache
    work: float
    seconds: Callable[[], float]

    def speed(self) -> float:
        return self.work / self.seconds()


class Limits:
    """Measures what this machine does at best just now, on one thread of a level."""

    def __init__(self, isa: str) -> None:
        self._isa, self._pool = isa, native.ThreadPool(1)
        self._floats = _aligned(48 * WIDTH * 4)
        self._floats[:] = 1
        self.bf16 = "f32" if native.bf16_peak(isa, self._pool, 1) is None else "bf16"

    def speed(self, limit: str) -> float:
        """The best of a few turns of a fraction of a millisecond: others run here, too."""
        return max(self._once(limit) for _ in range(8))

    def _once(self, limit: str) -> float:
        if limit == "read":
            return native.read_bandwidth(self._isa, self._pool, self._floats, 20)
        probes = {"int8": native.integer_peak, "f32": native.float_peak, "bf16": native.bf16_peak}
        found = probes[limit](self._isa, self._pool, 2000)
        assert found is not None, f"{self._isa} has no dots of {limit}"
        return found


def cases(isa: str, rows: tuple[int, ...] = ROWS) -> Iterator[Case]:
    bf16 = Limits(isa).bf16
    limits = {**dict.fromkeys(INTEGER_FORMATS, "int8"), "BF16": bf16, "F32": "f32"}
    for format, limit in limits.items():
        for count in rows:
            yield _matmul(isa, format, count, limit)
    of_kv = {kv: {"bf16": bf16, "f32": "f32"}.get(kv, "int8") for kv in KV_FORMATS}
    for kv, limit in of_kv.items():
        for dim, tokens in product(DIMS, (PREFILL, DECODE)):
            yield _attention(isa, kv, (dim, dim), tokens, limit)
    for kv, dims, tokens in product(WIDE_FORMATS, WIDE_DIMS, (PREFILL, DECODE)):
        yield _attention(isa, kv, dims, tokens, of_kv[kv])
    for kv, rounded, tokens in product(WIDE_FORMATS, (False, True), (PREFILL, DECODE)):
        yield _attention(isa, kv, (64, 64), tokens, of_kv[kv], "rounded" if rounded else "slopes")
    for kind in ("A32", "ABF16", "ABF16X2", "AF32"):
        yield _quantize(isa, kind)


def _matmul(isa: str, format: str, rows: int, limit: str) -> Case:
    weight = native.PackedWeight(HEIGHT, WIDTH, format)  # zeros take as long as anything
    x = np.random.default_rng(rows).standard_normal((rows, WIDTH), np.float32)
    return Case(
        f"{format} x {rows}",
        limit,
        2.0 * rows * HEIGHT * WIDTH,
        _timed(lambda repeats: native.time_matmul(isa, weight, x, repeats)),
    )


def _quantize(isa: str, kind: str) -> Case:
    x = np.random.default_rng(0).standard_normal((48, WIDTH), np.float32)
    timed = _timed(lambda repeats: native.time_quantize(isa, x, kind, repeats))
    return Case(f"quantise {kind}", "read", x.nbytes, timed)


def _attention(
    isa: str, kv: str, dims: tuple[int, int], tokens: int, limit: str, slopes: str = ""
) -> Case:
    """`slopes`: of ALiBi, "slopes" or "rounded"."""
    k_dim, v_dim = dims
    layout = native.KVLayout(1, 1, k_dim, v_dim, kv, kv, 64)
    blocks = CONTEXT // 64
    pages = _aligned(blocks * layout.block_stride)
    table, positions = np.arange(blocks, dtype=np.int32), np.arange(CONTEXT, dtype=np.int32)
    draw = np.random.default_rng(k_dim)
    k = draw.standard_normal((CONTEXT, 1, k_dim), np.float32)
    v = draw.standard_normal((CONTEXT, 1, v_dim), np.float32)
    native.write_kv(isa, pages, layout, table, positions, 0, k, v)
    q = draw.standard_normal((tokens, GROUP, k_dim), np.float32)
    out, first = np.empty((tokens, GROUP, v_dim), np.float32), CONTEXT - tokens
    of_heads = np.array([0.5, 0.25, 0.125], np.float32) if slopes else None

    def once() -> float:
        begin = time.perf_counter()
        native.attention(
            isa, out, q, pages, layout, table, 0, first, k_dim**-0.5,
            slopes=of_heads, rounded_slopes=slopes == "rounded",
        )  # fmt: skip
        return time.perf_counter() - begin

    seen = sum(first + i + 1 for i in range(tokens))
    width = f"{k_dim}" if k_dim == v_dim else f"{k_dim}/{v_dim}"
    return Case(
        " ".join(filter(None, ("attention", kv, width, slopes, f"x {tokens * GROUP}"))),
        limit,
        2.0 * (k_dim + v_dim) * GROUP * seen,
        _timed(lambda repeats: min(once() for _ in range(repeats))),
    )


def _timed(least: Callable[[int], float]) -> Callable[[], float]:
    """`least` is the fastest of so many calls. Of a long call the CPU time counts."""
    least(1)
    one = least(1)
    repeats = max(1, int(MOST_SECONDS / one))
    if one < LONG_SECONDS:
        return lambda: least(repeats)

    def cpu_seconds() -> float:
        begin = time.thread_time()
        least(1)
        return time.thread_time() - begin

    return cpu_seconds


def _aligned(nbytes: int) -> NDArray[np.uint8]:
    memory = np.zeros(nbytes + 64, np.uint8)
    begin = -memory.ctypes.data % 64
    return memory[begin : begin + nbytes]
