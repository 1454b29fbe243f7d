"""Bytes of K and V in the pages, by token and by layer group.

Comes in: a Program, the formats of K and V, and which tokens are kept apart. Knows nothing of
blocks, kernels or ops.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from octavo.program.ops import KVSpec
from octavo.program.program import Program


class RowFormat(Protocol):
    """How K or V is stored: `octavo.kernels.KVFormat`."""

    def row_bytes(self, dim: int) -> float:
        """Bytes of one token's row of one kv head."""


class Sinks(NamedTuple):
    """The first tokens of a sequence, whose K and V groups of full attention keep apart."""

    tokens: int
    format: RowFormat  # of both


def kv_bytes_per_token(program: Program, k_format: RowFormat, v_format: RowFormat) -> float:
    """Bytes that one token keeps in the pages of all layers."""
    return sum(kv_bytes_by_group(program, k_format, v_format))


def kv_bytes_by_group(program: Program, k_format: RowFormat, v_format: RowFormat) -> list[float]:
    """Return the bytes of K and V of one token in each layer group."""
    groups = zip(program.groups, program.layers_of_group, strict=True)
    return [layers * _kv_bytes(spec, k_format, v_format) for spec, layers in groups]


def pages_bytes(
    spec: KVSpec, k_format: RowFormat, v_format: RowFormat, sinks: Sinks | None, begin: int,
    end: int,
) -> float:  # fmt: skip
    """Return the bytes of K and V of tokens [begin, end) in one layer."""
    first = 0
    if sinks is not None and not spec.window:
        first = max(0, min(end, sinks.tokens) - begin)
    of_others = (end - begin - first) * _kv_bytes(spec, k_format, v_format)
    return of_others + (first * _kv_bytes(spec, sinks.format, sinks.format) if sinks else 0)


def _kv_bytes(spec: KVSpec, k_format: RowFormat, v_format: RowFormat) -> float:
    """Return the bytes of K and V of one token in one layer."""
    return spec.kv_heads * (k_format.row_bytes(spec.k_dim) + v_format.row_bytes(spec.v_dim))
