"""Which packed format each weight gets: what holds it as the files have it, or what was asked for.

Comes in: a `ModelHeader`, the weights that the program names, the option `weights`. Goes out:
formats and bytes, both before a weight is read. Packs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from types import MappingProxyType

from octavo.config import PACKED_WEIGHTS, PackedWeights
from octavo.errors import UnsupportedModelError, UsageError
from octavo.kernels import native
from octavo.model.mixture import ROUTER
from octavo.program.ops import WeightSpec
from octavo.weights.file_table import in_memory, of_files
from octavo.weights.ggml_type import GGMLType
from octavo.weights.model_header import ModelHeader
from octavo.weights.weight_view import Part

# F16 has no kernel: its values become BF16, rounded to nearest even. All others are kept exactly.
_OWN: Mapping[GGMLType, str] = MappingProxyType(
    {
        GGMLType.F32: "F32", GGMLType.F16: "BF16", GGMLType.BF16: "BF16", GGMLType.Q4_0: "W4S",
        GGMLType.Q4_1: "W4A", GGMLType.Q5_0: "W5S", GGMLType.Q5_1: "W5A", GGMLType.Q8_0: "W8",
        GGMLType.Q4_K: "W4K", GGMLType.Q5_K: "W5K", GGMLType.Q6_K: "W6K",
        GGMLType.Q2_K: "W2K", GGMLType.Q3_K: "W3K", GGMLType.IQ4_NL: "W4T", GGMLType.IQ4_XS: "W4TK",
        GGMLType.MXFP4: "W4F",
    }
)  # fmt: skip
_ASKED: Mapping[PackedWeights, str] = MappingProxyType(
    {"w8": "W8", "w4": "W4S", "bf16": "BF16", "f32": "F32"}
)
_QUANTISED = ("w8", "w4")
_FLOATS = (GGMLType.F32, GGMLType.F16, GGMLType.BF16)
_FLOAT = 4  # bytes: vectors are float32
_VOCABULARY = ("token_embd.weight", "output.weight")  # four bits are too few for them
_POSITIONS = "position_embd.weight"  # stays as it is: it is small, and added to every row


def packed_formats(
    header: ModelHeader, specs: Mapping[str, WeightSpec], asked: PackedWeights | None
) -> dict[str, str]:
    """The format of each matrix. Raises UsageError where it cannot be as asked, ModelError for a
    tensor that is missing or cannot be packed as it is."""
    return {
        name: _format(header, part, specs[name], asked)
        for name, part in header.parts(in_memory(specs)).items()
        if specs[name].kind == "matrix"
    }


def packed_bytes(
    header: ModelHeader, specs: Mapping[str, WeightSpec], asked: PackedWeights | None
) -> dict[str, float]:
    """The bytes of each weight in memory, where tables have none. Raises as `packed_formats`."""
    formats = packed_formats(header, specs, asked)
    found = {
        name: float(
            packed_nbytes(spec, formats[name]) if name in formats else prod(spec.shape) * _FLOAT
        )
        for name, spec in in_memory(specs).items()
    }
    return dict.fromkeys(specs, 0.0) | found


def in_file_bytes(header: ModelHeader, specs: Mapping[str, WeightSpec]) -> float:
    """Return the bytes of tables, whose rows are read from the model's file."""
    return sum(header.weight_bytes(of_files(specs)).values())


def packed_nbytes(spec: WeightSpec, format: str) -> int:
    """Return the bytes of a packed matrix, up to the next 64."""
    rows, cols = spec.shape
    return -(-native.packed_nbytes(rows, cols, format) // 64) * 64


def choices(
    header: ModelHeader, specs: Mapping[str, WeightSpec]
) -> dict[PackedWeights | None, dict[str, float]]:
    """The bytes of each weight, for each choice that this model has; None: as the files have
    them."""
    found = {}
    for asked in (None, *PACKED_WEIGHTS):
        try:
            found[asked] = packed_bytes(header, specs, asked)
        except (UsageError, UnsupportedModelError):
            continue
    return found


def is_router(name: str) -> bool:
    """Whether experts are chosen by it: a matrix that is small, and rounding it would choose
    others, or its bias."""
    return f".{ROUTER}." in name


def _format(header: ModelHeader, part: Part, spec: WeightSpec, asked: PackedWeights | None) -> str:
    type, place = part.info.type, f"{header.path}: {part.info.place}"
    if is_router(spec.name):
        return "F32"
    if asked is None:
        if part.view.transposed_each and part.view.needs_values(part.info):
            return "F32"  # small, and no row of it is a row of the tensor's blocks
        if part.view.needs_values(part.info):
            raise UnsupportedModelError(
                f"{place} is {type.name}: its rows are blocks of {type.block_values} values, which "
                "the heads of this model cut: run it unpacked, with --weights bf16 or f32"
            )
        return _OWN[type]
    if asked not in _QUANTISED:
        return _ASKED[asked]
    if type not in _FLOATS:
        raise UsageError(
            f"weights={asked!r}: {place} is {type.name}, quantised already: doing it again would "
            "only lose; leave weights out, or take a model in F32, F16 or BF16"
        )
    if spec.name == _POSITIONS:
        return _OWN[type]
    if spec.shape[1] % native.GROUP_COLUMNS:
        raise UsageError(
            f"weights={asked!r}: {place} has rows of {spec.shape[1]} values, and "
            f"{native.GROUP_COLUMNS} share a scale: take bf16"
        )
    return "W8" if spec.name in _VOCABULARY else _ASKED[asked]
