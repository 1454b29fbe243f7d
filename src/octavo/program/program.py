"""Program: a whole forward, as a flat list of ops over named values.

Data only; what the ops are is in `ops` and `fused_ops`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

from octavo.program.fused_ops import FusedOp
from octavo.program.ops import KVSpec, ReadableOp, RopeTable, Value, WeightSpec

Op = ReadableOp | FusedOp


@dataclass(frozen=True, slots=True)
class Program:
    """A whole forward. Interpreters make cos and sin by position from the rope tables."""

    ops: tuple[Op, ...]
    groups: tuple[KVSpec, ...]
    layers_of_group: tuple[int, ...]
    vocab_size: int  # tokens
    logits_width: int  # rows of the head's weight: tokens, and what fills it up
    hidden_size: int
    rope_tables: Mapping[str, RopeTable]  # by name

    @property
    def full_groups(self) -> list[int]:
        """Return the layer groups whose rows see all tokens before them."""
        return [group for group, spec in enumerate(self.groups) if not spec.window]

    def rotary_dim(self, rope_table: str) -> int:
        """Dims of a head that the table rotates."""
        return 2 * len(self.rope_tables[rope_table].frequencies)

    def weights(self) -> dict[str, WeightSpec]:
        """Every weight the ops name, once each, in order of first use."""
        found: dict[str, WeightSpec] = {}
        for op in self.ops:
            for spec in weights_of(op):
                found.setdefault(spec.name, spec)
        return found


def weights_of(op: Op) -> list[WeightSpec]:
    """The weights an op names."""
    fields = [getattr(op, name) for name in op.__dataclass_fields__]
    each = chain.from_iterable(f if isinstance(f, tuple) else (f,) for f in fields)
    return [spec for spec in each if isinstance(spec, WeightSpec)]


def inputs(op: Op) -> list[Value]:
    """The values an op reads."""
    read = [getattr(op, name) for name in op.__dataclass_fields__ if name != "out"]
    return [value for value in read if isinstance(value, Value)]


def output(op: Op) -> Value | None:
    """The value an op writes; None if what it makes leaves the program or goes to the pages."""
    return getattr(op, "out", None)
