"""Bytes of K and V in the pages, by token and by layer group.

Comes in: a Program, and the formats of K and V by layer group. Knows nothing of
blocks, kernels or ops.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from octavo.program.ops import KVSpec
from octavo.program.program import Program


class RowFormat(Protocol):
    """How K or V is stored: `octavo.kernels.KVFormat`."""

    @property
    def gives_v(self) -> bool:
        """Whether V that is a part of K can be read from K's values."""

    def row_bytes(self, dim: int) -> float:
        """Bytes of one token's row of one kv head."""


class Sinks(NamedTuple):
    """The first tokens of a sequence, whose K and V groups of full attention keep apart."""

    tokens: int
    format: RowFormat  # of both


class PageFormats(NamedTuple):
    """The formats of K and of V: where rows see all tokens, where they see a window, and of
    sinks."""

    full: tuple[RowFormat, RowFormat]
    window: tuple[RowFormat, RowFormat]
    sinks: Sinks | None = None

    @classmethod
    def everywhere(cls, k_format: RowFormat, v_format: RowFormat | None = None) -> PageFormats:
        """Return those of pages of one kind; V's format is K's unless said."""
        both = k_format, v_format or k_format
        return cls(both, both)

    def of(self, spec: KVSpec) -> tuple[RowFormat, RowFormat]:
        return self.full if spec.is_full else self.window

    def v_aliases_k(self, spec: KVSpec) -> bool:
        """Tell whether V is read from K's pages, so that it has none; those of sinks have both."""
        k_format, v_format = self.of(spec)
        return spec.v_in_k and k_format == v_format and k_format.gives_v

    def bytes_of(self, spec: KVSpec) -> float:
        """Return the bytes of K and V of one token in one layer; not of a sink."""
        k_format, v_format = self.of(spec)
        if self.v_aliases_k(spec):
            return spec.kv_heads * k_format.row_bytes(spec.k_dim)
        return _kv_bytes(spec, k_format, v_format)


def kv_bytes_per_token(program: Program, formats: PageFormats) -> float:
    """Bytes that one token keeps in the pages of all layers; of sinks none."""
    return sum(kv_bytes_by_group(program, formats))


def kv_bytes_by_group(program: Program, formats: PageFormats) -> list[float]:
    """Return the bytes of K and V of one token in each layer group; of sinks none."""
    groups = zip(program.groups, program.layers_of_group, strict=True)
    return [layers * formats.bytes_of(spec) for spec, layers in groups]


def sink_bytes_by_group(program: Program, sinks: Sinks) -> list[float]:
    """Return the bytes of K and V of one sink in each layer group."""
    groups = zip(program.groups, program.layers_of_group, strict=True)
    return [layers * _kv_bytes(spec, sinks.format, sinks.format) for spec, layers in groups]


def expanded_bytes(layers: int, heads: int, dims: tuple[int, int], formats: PageFormats) -> float:
    """Return the bytes of one token if each head had K and V of its own, `dims` wide."""
    return layers * _kv_bytes(KVSpec(heads, *dims), *formats.full)


def pages_bytes(spec: KVSpec, formats: PageFormats, begin: int, end: int) -> float:
    """Return the bytes of K and V of tokens [begin, end) in one layer."""
    first, sinks = 0, formats.sinks
    if sinks is not None and not spec.window:
        first = max(0, min(end, sinks.tokens) - begin)
    of_others = (end - begin - first) * formats.bytes_of(spec)
    return of_others + (first * _kv_bytes(spec, sinks.format, sinks.format) if sinks else 0)


def _kv_bytes(spec: KVSpec, k_format: RowFormat, v_format: RowFormat) -> float:
    """Return the bytes of K and V of one token in one layer, each with pages of its own."""
    return spec.kv_heads * (k_format.row_bytes(spec.k_dim) + v_format.row_bytes(spec.v_dim))
