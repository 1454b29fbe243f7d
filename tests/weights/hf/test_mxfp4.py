"""Pairs of tensors that are one in MXFP4, and what is said of those that are not."""

from __future__ import annotations

import numpy as np
import pytest

from octavo.errors import ModelError
from octavo.weights.dequantize import dequantize
from octavo.weights.ggml_type import GGMLType
from octavo.weights.gguf_header import TensorInfo
from octavo.weights.hf.mxfp4 import as_blocks, joined
from octavo.weights.safetensors import ByteTensor

TABLE = [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6]


def of_bytes(name: str, *shape: int, file: str = "a.safetensors") -> ByteTensor:
    return ByteTensor(name, shape, 8, int(np.prod(shape)), file)


def test_two_values_side_by_side_become_two_that_are_sixteen_apart() -> None:
    rng = np.random.default_rng(0)
    nibbles = rng.integers(0, 16, (3, 64), dtype=np.uint8)  # rows of values
    scales = rng.integers(110, 130, (3, 2), dtype=np.uint8)
    pairs = (nibbles[:, 0::2] | nibbles[:, 1::2] << 4).astype(np.uint8)
    got = dequantize(GGMLType.MXFP4, as_blocks(pairs.reshape(-1), scales.reshape(-1)), (3, 64))
    want = np.array(TABLE)[nibbles] * np.repeat(2.0 ** (scales.astype(int) - 127), 32, axis=1)
    assert np.array_equal(got, want)


def test_a_pair_is_one_tensor_whichever_files_it_is_in() -> None:
    blocks = of_bytes("x.down_proj_blocks", 4, 10, 3, 16)
    scales = of_bytes("x.down_proj_scales", 4, 10, 3, file="b.safetensors")
    plain = TensorInfo("norm", (4,), GGMLType.F32, 0, 16)
    tensors, pairs = joined({"norm": plain, blocks.name: blocks, scales.name: scales})
    assert pairs == {"x.down_proj": (blocks, scales)}
    assert tensors.keys() == {"norm", "x.down_proj"}
    info = tensors["x.down_proj"]
    assert (info.type, info.shape, info.file) == (GGMLType.MXFP4, (4, 10, 96), "a.safetensors")
    assert info.nbytes == 4 * 10 * 3 * 17


REFUSED: dict[str, tuple[list[tuple[str, tuple[int, ...]]], str]] = {
    "no scales": ([("w_blocks", (2, 1, 16))], "tensor 'w_blocks' .* is of type U8: F32, F16 and"),
    "no blocks": ([("w_scales", (2, 1))], "tensor 'w_scales' .* is of type U8: F32, F16 and BF16"),
    "bytes alone": ([("mask", (4, 4))], "tensor 'mask' .* is of type U8: F32, F16 and BF16"),
    "another block": (
        [("w_blocks", (2, 1, 8)), ("w_scales", (2, 1))],
        r"'w_blocks' .*: shape \(2, 1, 8\), and 'w_scales' has \(2, 1\): expected 16 bytes for",
    ),
    "fewer scales": (
        [("w_blocks", (2, 4, 16)), ("w_scales", (2, 3))],
        r"'w_blocks' .*: shape \(2, 4, 16\), and 'w_scales' has \(2, 3\): expected 16 bytes for",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_bytes_are_refused_by_name(name: str) -> None:
    there, message = REFUSED[name]
    with pytest.raises(ModelError, match=message):
        joined({each: of_bytes(each, *shape) for each, shape in there})


def test_a_tensor_that_is_there_in_both_forms_is_refused() -> None:
    plain = TensorInfo("w", (2, 32), GGMLType.BF16, 0, 128)
    blocks, scales = of_bytes("w_blocks", 2, 1, 16), of_bytes("w_scales", 2, 1)
    with pytest.raises(ModelError, match=r"'w_blocks' .* and 'w' are one tensor: take one away"):
        joined({"w": plain, "w_blocks": blocks, "w_scales": scales})
