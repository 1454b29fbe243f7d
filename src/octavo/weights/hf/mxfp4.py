"""MXFP4 in a directory: the nibbles of a tensor in `NAME_blocks`, its scales in `NAME_scales`, both
bytes; and how they become the blocks that a GGUF file has.

Two values lie side by side in a byte there, the first in its low half; in a block value i and
i + 16 share one. Knows no file and no family.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.weights.dequantize import Bytes
from octavo.weights.ggml_type import GGMLType
from octavo.weights.gguf_header import TensorInfo
from octavo.weights.safetensors import ByteTensor

_VALUES, _PAIRS = GGMLType.MXFP4.block_values, GGMLType.MXFP4.block_values // 2
_BLOCKS, _SCALES = "_blocks", "_scales"


def joined(
    found: Mapping[str, TensorInfo | ByteTensor],
) -> tuple[dict[str, TensorInfo], dict[str, tuple[ByteTensor, ByteTensor]]]:
    """Return all tensors, pairs as one that is called NAME and has its blocks' place, and these
    pairs by name. Raises ModelError for bytes that are no pair."""
    tensors: dict[str, TensorInfo] = {}
    pairs: dict[str, tuple[ByteTensor, ByteTensor]] = {}
    for name, info in found.items():
        if isinstance(info, TensorInfo):
            tensors[name] = info
            continue
        stem = name.removesuffix(_BLOCKS).removesuffix(_SCALES)
        both = found.get(f"{stem}{_BLOCKS}"), found.get(f"{stem}{_SCALES}")
        blocks, scales = both
        if not (isinstance(blocks, ByteTensor) and isinstance(scales, ByteTensor)):
            raise UnsupportedModelError(
                f"{info.place} is of type U8: F32, F16 and BF16 are read, and bytes that are "
                f"{_BLOCKS} and {_SCALES} of one tensor"
            )
        if blocks.shape != (*scales.shape, _PAIRS) or len(scales.shape) < 2:
            raise ModelFormatError(
                f"{blocks.place}: shape {blocks.shape}, and {scales.name!r} has {scales.shape}: "
                f"expected {_PAIRS} bytes for each scale"
            )
        if stem in found:
            raise ModelFormatError(f"{blocks.place} and {stem!r} are one tensor: take one away")
        pairs[stem] = blocks, scales
        shape = (*scales.shape[:-1], scales.shape[-1] * _VALUES)
        nbytes = blocks.nbytes + scales.nbytes
        tensors[stem] = TensorInfo(
            blocks.name, shape, GGMLType.MXFP4, blocks.offset, nbytes, file=blocks.file
        )
    return tensors, pairs


def as_blocks(pairs: Bytes, scales: Bytes) -> Bytes:
    """The bytes of GGUF blocks, from those of the two tensors."""
    first, last = np.split(pairs.reshape(-1, _PAIRS), 2, axis=1)  # values 0 to 15, 16 to 31
    out = np.empty((len(first), GGMLType.MXFP4.block_bytes), np.uint8)
    out[:, 0] = scales
    out[:, 1::2] = first & 15 | last << 4
    out[:, 2::2] = first >> 4 | last & 0xF0
    return out.reshape(-1)
