"""The compiled kernels: which ISA levels and KV formats there are, and the `native` module that
holds them.

Imports the compiled core once and says clearly when it is missing or refuses this machine.
Makes the thread pools. Knows no models and no programs. A level is a name such as "avx512".
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from octavo.errors import KernelError, UsageError, counted

try:
    import octavo.kernels._native as native
except ImportError as error:
    raise KernelError(
        f"the compiled core of Octavo does not load ({error}); "
        "build it with `make build` or `pip install .`"
    ) from error

try:
    _DEFAULT_ISA = native.default_isa()
except ValueError as error:
    raise KernelError(f"{error}; unset OCTAVO_ISA or set it to one of these") from error


class KVFormat(NamedTuple):
    """A format of K or V in the pages: a row of the core's table (csrc/kv_formats.h)."""

    name: str
    bits: int  # of a value
    scale_bytes: int  # of a row (one token's K or V of one kv head), or of each of its groups
    group: int  # values that have scales of their own; 0: the row
    k_layout: str
    v_layout: str
    gives_v: bool  # whether V that is a part of K can be read from K's values

    def row_bytes(self, dim: int) -> float:
        group = self.group or dim
        return -(-dim // group) * (group * self.bits / 8 + self.scale_bytes)


KV_FORMATS: Mapping[str, KVFormat] = MappingProxyType(
    {row[0]: KVFormat(*row) for row in native.KV_FORMATS}
)
THREADS_PER_CORE = 4  # at most: more only wait for each other, a hundred times slower


def thread_pool(threads: int | None = None) -> native.ThreadPool:
    """A pool whose threads run; by default one for each core that this process may use."""
    cores = native.usable_cpus()
    if threads is not None and threads > THREADS_PER_CORE * cores:
        raise UsageError(
            f"threads={threads}: this process may use {counted(cores, 'core')}, for at most "
            f"{counted(THREADS_PER_CORE * cores, 'thread')}: leave threads out for one a core"
        )
    pool = native.ThreadPool(threads or cores)
    try:
        pool.run_barriers(1)  # starts them
    except RuntimeError as error:  # the system gives no more
        raise KernelError(
            f"cannot start {counted(pool.size, 'thread')} ({error}): ask for fewer (--threads, "
            "threads=), or raise the limits (`ulimit -u`, `ulimit -v`)"
        ) from None
    return pool


def available_isas() -> tuple[str, ...]:
    """The ISA levels that this build has and this machine runs, the best last."""
    return tuple(native.available_isas())


def default_isa() -> str:
    """The level used unless a caller names one: the best, or the one OCTAVO_ISA forces."""
    return _DEFAULT_ISA


def numerics_id(isa: str) -> str:
    """Return what the bits of a level's results depend on besides inputs and how rows are packed: K
    and V computed under another id are not what this level would compute."""
    return (
        f"{native.KERNEL_VERSION}/{native.arithmetic_class(isa)}"
        f"/tile{native.ATTENTION_TILE}/chunk{native.ATTENTION_CHUNK}"
    )


__all__ = [
    "KV_FORMATS",
    "KVFormat",
    "available_isas",
    "default_isa",
    "native",
    "numerics_id",
    "thread_pool",
]
