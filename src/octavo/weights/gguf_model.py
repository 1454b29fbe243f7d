"""The weights of a model in a GGUF file or a directory, packed for the kernels.

Comes in: a `ModelHeader` and the weights that the program names. Goes out: `ModelWeights` with all
of them, checked by name, shape and type. After packing nothing maps the file. The only place where
files, kernels and the program's weight names meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np

from octavo.batch import FloatArray
from octavo.config import Activations
from octavo.errors import ModelFormatError, UsageError
from octavo.kernels import native
from octavo.program.fuse import RowKind
from octavo.program.ops import WeightSpec
from octavo.weights.dequantize import dequantize
from octavo.weights.ggml_type import GGMLType
from octavo.weights.gguf_header import TensorInfo
from octavo.weights.model_files import OpenTensors
from octavo.weights.model_header import ModelHeader

# F16 has no kernel: its values become BF16, rounded to nearest even. All others are kept exactly.
_FORMATS: Mapping[GGMLType, str] = MappingProxyType(
    {
        GGMLType.F32: "F32", GGMLType.F16: "BF16", GGMLType.BF16: "BF16", GGMLType.Q4_0: "W4S",
        GGMLType.Q4_1: "W4A", GGMLType.Q5_0: "W5S", GGMLType.Q5_1: "W5A", GGMLType.Q8_0: "W8",
        GGMLType.Q4_K: "W4K", GGMLType.Q5_K: "W5K", GGMLType.Q6_K: "W6K",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """Matrices packed for the kernels, vectors as float32; by the names the program uses."""

    matrices: Mapping[str, native.PackedWeight]
    vectors: Mapping[str, FloatArray]

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
        return sum(m.nbytes for m in self.matrices.values()) + sum(
            v.nbytes for v in self.vectors.values()
        )


def load_weights(
    header: ModelHeader,
    specs: Mapping[str, WeightSpec],
    pool: native.ThreadPool,
    *,
    expand: Literal["bf16", "f32"] | None = None,
) -> ModelWeights:
    """Pack every weight of `specs`; `expand` gives up the file's own formats.

    Raises ModelFormatError with the tensor and what was expected if one is missing or of another
    shape.
    """
    with header.files.open_tensors() as file:
        found = {name: _find(file, header, spec) for name, spec in specs.items()}
        formats = {
            name: expand.upper() if expand else _FORMATS[info.type]
            for name, info in found.items()
            if specs[name].kind == "matrix"
        }
        # One block of memory for all: alone, small matrices would not fill a huge page.
        memory = native.WeightMemory(sum(_packed_bytes(found[n], f) for n, f in formats.items()))
        matrices: dict[str, native.PackedWeight] = {}
        vectors: dict[str, FloatArray] = {}
        for name, info in found.items():
            if name not in formats:
                vectors[name] = _floats(file, header, name)
                continue
            rows, cols = info.shape
            matrices[name] = native.pack_weight(
                pool, file.data(name), int(info.type), rows, cols, formats[name], memory
            )
            file.drop(name)
        file.check_unchanged()
    return ModelWeights(matrices, vectors)


def reference_weights(
    header: ModelHeader, specs: Mapping[str, WeightSpec]
) -> dict[str, FloatArray]:
    """Return every weight as float32, for the reference interpreter."""
    with header.files.open_tensors() as file:
        for spec in specs.values():
            _find(file, header, spec)
        return {name: _floats(file, header, name) for name in specs}


def _floats(file: OpenTensors, header: ModelHeader, name: str) -> FloatArray:
    """The values that the program computes with."""
    info = file.tensors[name]
    values = dequantize(info.type, file.data(name), info.shape)
    if header.files.norm_offset and name.endswith("norm.weight"):
        values += np.float32(header.files.norm_offset)
    return values


def _packed_bytes(info: TensorInfo, format: str) -> int:
    """Return the bytes of a packed matrix, up to the next 64."""
    rows, cols = info.shape
    return -(-native.packed_nbytes(rows, cols, format) // 64) * 64


def _find(file: OpenTensors, header: ModelHeader, spec: WeightSpec) -> TensorInfo:
    info = file.tensors.get(spec.name)
    if info is None:
        theirs = header.files.tensor_name(spec.name)
        raise ModelFormatError(
            f"{header.path}: tensor {theirs!r} is missing: expected shape {spec.shape}"
        )
    if info != header.tensors[spec.name]:
        raise ModelFormatError(f"{header.path}: changed since its header was read: load it again")
    if info.shape != spec.shape:
        raise ModelFormatError(
            f"{header.path}: {info.place}: expected shape {spec.shape}, found {info.shape}"
        )
    return info
