"""Safetensors files: values of each type, and one clear line for each way to be broken."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.errors import ModelError, ModelFormatError, UnsupportedModelError
from octavo.weights.dequantize import dequantize
from octavo.weights.safetensors import SafetensorsFile
from tests.weights.hf.written import Dtype, bf16, safetensors_bytes, write_safetensors

VALUES = bf16(np.random.default_rng(5).standard_normal((3, 8), np.float32))


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_values_of_each_type_are_read(tmp_path: Path, dtype: Dtype) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": VALUES, "none": np.zeros((0, 4), np.float32)}, dtype=dtype)
    with SafetensorsFile(path) as file:
        info = file.tensors["a"]
        assert (info.shape, info.type.name, info.file) == ((3, 8), dtype, "model.safetensors")
        data = file.bytes_at(info.offset, info.nbytes)
        got = dequantize(info.type, data, info.shape)
        del data
        file.drop_at(info.offset, info.nbytes)
        assert file.tensors["none"].nbytes == 0
    want = VALUES.astype(np.float16).astype(np.float32) if dtype == "F16" else VALUES
    assert np.array_equal(got, want)


def test_a_header_of_odd_length_leaves_values_where_no_float_is_aligned(tmp_path: Path) -> None:
    header = {"a": {"dtype": "F32", "shape": [24], "data_offsets": [0, 96]}}
    text = json.dumps(header).encode()
    text += b" " * (1 + -len(text) % 4)
    path = tmp_path / "odd.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + VALUES.tobytes())
    with SafetensorsFile(path) as file:
        info = file.tensors["a"]
        assert info.offset % 4 == 1
        data = file.bytes_at(info.offset, info.nbytes)
        assert np.array_equal(dequantize(info.type, data, (24,)), VALUES.reshape(-1))
        del data


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16], **changes}


DATA = bytes(32)
OTHER = {"dtype": "F32", "shape": [4], "data_offsets": [12, 28]}
BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "{path}: expected a safetensors file, file is empty"),
    "seven bytes": (
        b"1234567",
        "{path}: its header has 15,540,725,856,023,089 bytes by the first 8 of the file, which has "
        "7 in all: no safetensors file, or cut off",
    ),
    "a header longer than the file": (
        struct.pack("<Q", 1 << 40) + b"{}",
        "{path}: its header has 1,099,511,627,776 bytes by the first 8 of the file, which has 10 "
        "in all: no safetensors file, or cut off",
    ),
    "no JSON": (
        safetensors_bytes(b'{"a": ', b""),
        "header of {path} is not JSON: Expecting value at line 1, column 9",
    ),
    "no UTF-8": (safetensors_bytes(b'{"\xff', b""), "header of {path} is not UTF-8 at byte 2"),
    "no object": (safetensors_bytes(b"[1]", b""), "header of {path}: expected an object, found a "
                  "list"),
    "a tensor twice": (safetensors_bytes(b'{"a":{},"a":{}}', b""),
                       "header of {path}: 'a' is there twice"),
    "no offsets": (
        safetensors_bytes({"a": {"dtype": "F32", "shape": [1]}}, DATA),
        "{path}: tensor 'a': expected dtype, shape and two data_offsets, found "
        '{{"dtype": "F32", "shape": [1]}}',
    ),
    "a negative size": (
        safetensors_bytes({"a": entry(shape=[-2, -2])}, DATA),
        "{path}: tensor 'a': expected dtype, shape and two data_offsets, found "
        '{{"dtype": "F32", "shape": [-2, -2], "data_offsets": [0, 16]}}',
    ),
    "another type": (
        safetensors_bytes({"a": entry(dtype="I32")}, DATA),
        "{path}: tensor 'a' is of type I32: F32, F16 and BF16 are read",
    ),
    "five dimensions": (
        safetensors_bytes({"a": entry(shape=[1, 1, 1, 1, 4])}, DATA),
        "{path}: tensor 'a': expected at most 4 dimensions: [1, 1, 1, 1, 4]",
    ),
    "cut off": (
        safetensors_bytes({"a": entry()}, DATA[:12]),
        "{path}: tensor 'a': bytes 0 to 16, but the file has 12 after its header",
    ),
    "offsets backwards": (
        safetensors_bytes({"a": entry(data_offsets=[16, 0])}, DATA),
        "{path}: tensor 'a': bytes 16 to 0, but the file has 32 after its header",
    ),
    "another shape": (
        safetensors_bytes({"a": entry(shape=[2, 3])}, DATA),
        "{path}: tensor 'a': F32 of shape (2, 3) is 24 bytes, found 16",
    ),
    "a shape beyond all numbers": (
        safetensors_bytes({"a": entry(shape=[2**40, 2**40])}, DATA),
        "{path}: tensor 'a': F32 of shape (1099511627776, 1099511627776) is "
        "4,835,703,278,458,516,698,824,704 bytes, found 16",
    ),
}  # fmt: skip


def refusal(kind: type[ModelError], ask: Callable[[], object]) -> str:
    with pytest.raises(kind) as refused:
        ask()
    return str(refused.value)


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_is_refused_in_one_line(tmp_path: Path, what: str) -> None:
    data, said = BROKEN[what]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    kind = UnsupportedModelError if what == "another type" else ModelFormatError
    assert refusal(kind, lambda: SafetensorsFile(path)) == said.format(path=path)


def test_tensors_that_overlap_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes({"b": OTHER, "a": entry()}, DATA))
    with pytest.raises(ModelFormatError) as refused:
        SafetensorsFile(path)
    start = path.stat().st_size - len(DATA)
    said = f"{path}: tensors 'a' and 'b' overlap at offset {start + 12}"
    assert str(refused.value) == said


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_damage_to_a_file_is_anything_but_a_model_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    raw = bytearray(
        safetensors_bytes({"a": entry(), "b": {**OTHER, "data_offsets": [16, 32]}}, DATA)
    )
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(raw[: data.draw(st.integers(1, len(raw)))])
    with contextlib.suppress(ModelError), SafetensorsFile(path) as file:
        for info in file.tensors.values():
            assert len(file.bytes_at(info.offset, info.nbytes)) == info.nbytes
