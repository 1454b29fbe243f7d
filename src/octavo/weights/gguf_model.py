"""The weights of a model in a GGUF file or a directory, packed for the kernels.

Comes in: a `ModelHeader` and the weights that the program names. Goes out: `ModelWeights` with all
of them, checked by name, shape and type. After packing nothing maps the file. The only place where
files, kernels and the program's weight names meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np

from octavo.batch import FloatArray
from octavo.config import Activations
from octavo.errors import ModelFormatError, UnsupportedModelError, UsageError
from octavo.kernels import native
from octavo.program.fuse import RowKind
from octavo.program.ops import WeightSpec
from octavo.weights.dequantize import dequantize
from octavo.weights.ggml_type import GGMLType
from octavo.weights.gguf_header import TensorInfo
from octavo.weights.model_files import OpenTensors
from octavo.weights.model_header import ModelHeader
from octavo.weights.weight_view import Views, WeightView, view_of

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
    views = header.views()
    with header.files.open_tensors() as file:
        found = {name: _find(file, header, views, spec) for name, spec in specs.items()}
        formats: dict[str, str] = {}
        for name, part in found.items():
            if specs[name].kind == "vector":
                continue
            if expand is None and part.view.needs_values(part.info):
                raise _unpacked_only(header, part)
            formats[name] = expand.upper() if expand else _FORMATS[part.info.type]
        # One block of memory for all: alone, small matrices would not fill a huge page.
        memory = native.WeightMemory(
            sum(_packed_bytes(specs[name], format) for name, format in formats.items())
        )
        matrices: dict[str, native.PackedWeight] = {}
        vectors: dict[str, FloatArray] = {}
        for name, part in found.items():
            if name not in formats:
                vectors[name] = _floats(file, header, part, specs[name])
                continue
            rows, cols = specs[name].shape
            type, data = part.view.read(part.info, file.data(part.view.tensor))
            matrices[name] = native.pack_weight(
                pool, data, int(type), rows, cols, formats[name], memory
            )
            del data
            file.drop(part.view.tensor)
        file.check_unchanged()
    return ModelWeights(matrices, vectors)


def reference_weights(
    header: ModelHeader, specs: Mapping[str, WeightSpec]
) -> dict[str, FloatArray]:
    """Return every weight as float32, for the reference interpreter."""
    views = header.views()
    with header.files.open_tensors() as file:
        found = {name: _find(file, header, views, spec) for name, spec in specs.items()}
        return {name: _floats(file, header, part, specs[name]) for name, part in found.items()}


class _Part(NamedTuple):
    """A weight in a tensor of the files."""

    view: WeightView
    info: TensorInfo


def _floats(file: OpenTensors, header: ModelHeader, part: _Part, spec: WeightSpec) -> FloatArray:
    """The values that the program computes with."""
    type, data = part.view.read(part.info, file.data(part.view.tensor))
    values = dequantize(type, data, spec.shape)
    if header.files.norm_offset and spec.name.endswith("norm.weight"):
        values += np.float32(header.files.norm_offset)
    return values


def _packed_bytes(spec: WeightSpec, format: str) -> int:
    """Return the bytes of a packed matrix, up to the next 64."""
    rows, cols = spec.shape
    return -(-native.packed_nbytes(rows, cols, format) // 64) * 64


def _find(file: OpenTensors, header: ModelHeader, views: Views, spec: WeightSpec) -> _Part:
    view = view_of(views, spec.name)
    info, expected = file.tensors.get(view.tensor), view.tensor_shape(spec.shape)
    if info is None:
        theirs = header.files.tensor_name(view.tensor)
        raise ModelFormatError(
            f"{header.path}: tensor {theirs!r} is missing: expected shape {expected}"
        )
    if info != header.tensors[view.tensor]:
        raise ModelFormatError(f"{header.path}: changed since its header was read: load it again")
    if info.shape != expected:
        raise ModelFormatError(
            f"{header.path}: {info.place}: expected shape {expected}, found {info.shape}"
        )
    return _Part(view, info)


def _unpacked_only(header: ModelHeader, part: _Part) -> UnsupportedModelError:
    blocks = f"blocks of {part.info.type.block_values} values"
    return UnsupportedModelError(
        f"{header.path}: {part.info.place} is {part.info.type.name}: its rows are {blocks}, which "
        "the heads of this model cut: run it unpacked, with --weights bf16 or f32"
    )
