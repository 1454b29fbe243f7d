"""Tables whose rows stay in the model's file: gathered where it is mapped, never packed.

The mapping goes with the last array of it, so a table keeps its file open. Knows no format of
files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from octavo.batch import FloatArray, IntArray
from octavo.program.ops import WeightSpec
from octavo.weights.dequantize import Bytes, dequantize
from octavo.weights.ggml_type import GGMLType


class FileTable(NamedTuple):
    """The rows of a table, in blocks of its type."""

    type: GGMLType
    data: Bytes  # (rows * bytes of a row,), in place
    rows: int
    cols: int

    def gather(self, rows: IntArray) -> FloatArray:
        """Rows as float32, (len(rows), cols): what the native interpreter does, in numpy."""
        blocks = self.data.reshape(self.rows, -1)[rows]
        return dequantize(self.type, blocks.reshape(-1), (len(rows), self.cols))


def in_memory(specs: Mapping[str, WeightSpec]) -> dict[str, WeightSpec]:
    """Return the weights that are loaded: all but tables."""
    return {name: spec for name, spec in specs.items() if spec.kind != "table"}


def of_files(specs: Mapping[str, WeightSpec]) -> dict[str, WeightSpec]:
    """Return the tables."""
    return {name: spec for name, spec in specs.items() if spec.kind == "table"}
