"""The weights of a model in a GGUF file or a directory, packed for the kernels.

Comes in: a `ModelHeader` and the weights that the program names. Goes out: `ModelWeights` with all
of them, checked by name, shape and type. After packing nothing maps the file, but for tables whose
rows stay there. The only place where files, kernels and the program's weight names meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from octavo.batch import FloatArray
from octavo.config import Activations, PackedWeights
from octavo.errors import ModelFormatError, UsageError
from octavo.kernels import native
from octavo.program.fuse import RowKind
from octavo.program.ops import WeightSpec
from octavo.weights.dequantize import dequantize
from octavo.weights.file_table import FileTable, in_memory, of_files
from octavo.weights.model_files import OpenTensors
from octavo.weights.model_header import ModelHeader
from octavo.weights.packed_formats import is_router, packed_formats, packed_nbytes
from octavo.weights.weight_view import Part


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """Matrices packed for the kernels, vectors as float32, and tables that stay in the model's
    file; by the names the program uses."""

    matrices: Mapping[str, native.PackedWeight]
    vectors: Mapping[str, FloatArray]
    mapped: bool = False  # in a file, which processes share
    tables: Mapping[str, FileTable] = field(default_factory=dict)

    def row_kinds(self, activations: Activations | None) -> dict[str, RowKind]:
        """Return what rows each matrix's kernel reads. `activations` chooses for integer formats
        only.

        Raises UsageError if it was given and there is no integer format: it would do nothing.
        """
        integer: RowKind = "abf16x2" if activations == "bf16" else "a32"
        kinds: dict[str, RowKind] = {"BF16": "abf16", "F32": "af32"}
        found = {name: kinds.get(matrix.format, integer) for name, matrix in self.matrices.items()}
        if activations is not None and integer not in found.values():
            raise UsageError(
                f"activations={activations!r}: no weight is in an integer format, "
                "so it would change nothing: leave it out"
            )
        return found

    def nbytes(self) -> int:
        """Return the bytes in memory: tables are in none."""
        return sum(m.nbytes for m in self.matrices.values()) + sum(
            v.nbytes for v in self.vectors.values()
        )


def load_weights(
    header: ModelHeader,
    specs: Mapping[str, WeightSpec],
    pool: native.ThreadPool,
    *,
    asked: PackedWeights | None = None,
) -> ModelWeights:
    """Pack every weight of `specs`: as the files have it, or as `asked`.

    Raises ModelFormatError with the tensor and what was expected if one is missing or of another
    shape, UsageError where one cannot be had as asked.
    """
    parts, formats = header.parts(in_memory(specs)), packed_formats(header, specs, asked)
    with header.files.open_tensors() as file:
        _check_same(file, header, parts)
        # One block of memory for all: alone, small matrices would not fill a huge page.
        memory = native.WeightMemory(
            sum(packed_nbytes(specs[name], format) for name, format in formats.items())
        )
        matrices: dict[str, native.PackedWeight] = {}
        vectors: dict[str, FloatArray] = {}
        for name, part in parts.items():
            header.check_unchanged()  # to read beyond the end of a file that was cut kills
            if is_router(name):
                _check_router(_floats(file, header, part, specs[name]), header, part)
            if name not in formats:
                vectors[name] = _floats(file, header, part, specs[name])
                continue
            rows, cols = specs[name].shape
            type, data = part.read(file.data)
            try:
                matrices[name] = native.pack_weight(
                    pool, data, int(type), rows, cols, formats[name], memory
                )
            except OverflowError as error:
                raise ModelFormatError(f"{header.path}: {part.info.place} has {error}") from None
            del data
            for tensor in part.view.names:
                file.drop(tensor)
    header.check_unchanged()
    return ModelWeights(matrices, vectors, tables=open_tables(header, specs))


def open_tables(header: ModelHeader, specs: Mapping[str, WeightSpec]) -> dict[str, FileTable]:
    """Map the tables among the weights, where they are. Raises ModelFormatError as
    `load_weights`."""
    parts = header.parts(of_files(specs))
    if not parts:
        return {}
    file = header.files.open_tensors()  # never closed: the mapping goes with the last table of it
    _check_same(file, header, parts)
    found = {}
    for name, part in parts.items():
        type, data = part.read(file.data)
        found[name] = FileTable(type, data, *specs[name].shape)
    return found


def reference_weights(
    header: ModelHeader, specs: Mapping[str, WeightSpec]
) -> dict[str, FloatArray]:
    """Return every weight as float32, for the reference interpreter; none of the tables."""
    parts = header.parts(in_memory(specs))
    with header.files.open_tensors() as file:
        _check_same(file, header, parts)
        return {name: _floats(file, header, part, specs[name]) for name, part in parts.items()}


def _floats(file: OpenTensors, header: ModelHeader, part: Part, spec: WeightSpec) -> FloatArray:
    """The values that the program computes with."""
    type, data = part.read(file.data)
    values = dequantize(type, data, spec.shape)
    if header.files.norm_offset and spec.name.endswith("norm.weight"):
        values += np.float32(header.files.norm_offset)
    return values


def _check_router(values: FloatArray, header: ModelHeader, part: Part) -> None:
    """Rows would be sent to experts by numbers that are none."""
    if not np.isfinite(values).all():
        raise ModelFormatError(
            f"{header.path}: {part.info.place} chooses experts and has values that are not finite: "
            "get the file again"
        )


def _check_same(file: OpenTensors, header: ModelHeader, parts: Mapping[str, Part]) -> None:
    if any(file.tensors.get(n) != i for part in parts.values() for n, i in part.tensors.items()):
        raise ModelFormatError(f"{header.path}: changed since its header was read: load it again")
