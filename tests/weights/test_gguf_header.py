"""Broken GGUF headers: each is one ModelFormatError with its offset, and costs no memory."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.errors import ModelFormatError, OctavoError, UnsupportedModelError
from octavo.weights.gguf import GGUFFile
from octavo.weights.gguf_header import parse_header
from tests.weights.gguf_bytes import (
    ARRAY,
    BOOL,
    STRING,
    U32,
    entry,
    gguf,
    small_model,
    string,
    strings,
    tensor,
    u32,
    u64,
)

F32_TENSOR = tensor("w", (4,), 0, 0)
DATA = bytes(16)
HUGE = 2**64 - 1


@contextmanager
def allocating_less_than(limit: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit, f"peak {peak} bytes"


BROKEN = {
    "foreign": (b"PK\3\4" + bytes(40), r"magic at offset 0: expected b'GGUF', found b'PK"),
    "too short for the magic": (b"GG", r"magic at offset 0: expected 4 more bytes"),
    "cut in the version": (b"GGUF\3", r"version at offset 4: expected 4 more bytes"),
    "tensor count": (gguf([], [], num_tensors=HUGE),
        rf"tensor count at offset 8: expected at most 0 in a file of 32 bytes, found {HUGE}"),
    "metadata count": (gguf([], [], num_entries=2),
        r"metadata count at offset 16: expected at most 0 in a file of 32 bytes, found 2"),
    "key length": (gguf([u64(HUGE) + bytes(20)], []),
        r"metadata key 0 \(string 0\) at offset 24: expected a string that ends by 64"),
    "key not UTF-8": (gguf([entry("", U32, u32(0)).replace(u64(0), string(b"\xff"))], []),
                      r"metadata key 0 \(string 0\) at offset 24: expected valid UTF-8"),
    "value type": (gguf([entry("k", 13, u64(0))], []), r"metadata 'k' at offset 33: .* found 13"),
    "a bool of 2": (gguf([entry("k", BOOL, b"\2")], []), r"metadata 'k' at offset 37: .* 0 or 1"),
    "array of arrays": (gguf([entry("k", ARRAY, u32(ARRAY) + u64(1) + u32(U32) + u64(0))], []),
        r"metadata 'k' at offset 37: expected an array of numbers or strings, found value type 9"),
    "array length": (gguf([entry("k", ARRAY, u32(U32) + u64(2**62))], []),
        r"length of metadata 'k' at offset 41: expected at most 3 .* found 4611686018427387904"),
    "strings length": (gguf([entry("k", ARRAY, u32(STRING) + u64(HUGE))], []),
        r"length of metadata 'k' at offset 41: expected at most 1"),
    "third of four strings": (
        gguf([strings("k", ["a", "b", "c", "d"]).replace(string("c"), u64(99) + b"c")], []),
        r"metadata 'k' \(string 2\) at offset 67: expected a string that ends by 96",
    ),
    "token not UTF-8": (
        gguf([strings("tokenizer.k", ["a", "b"]).replace(string("b"), string(b"\xc3"))], []),
        r"metadata 'tokenizer\.k' \(string 1\) at offset 68: expected valid UTF-8",
    ),
    "key twice": (gguf([entry("k", U32, u32(0)), entry("k", U32, u32(0))], []),
        r"metadata key 'k' at offset 41: expected each key once"),
    "zero alignment": (gguf([entry("general.alignment", U32, u32(0))], [F32_TENSOR], DATA),
        r"metadata 'general\.alignment' .* a multiple of 8, found 0"),
    "alignment of a wrong kind": (
        gguf([entry("general.alignment", STRING, string("32"))], [F32_TENSOR], DATA),
        r"metadata 'general\.alignment' .* a multiple of 8, found '32'",
    ),
    "no dimensions": (gguf([], [tensor("w", (), 0, 0)], DATA), r"'w' at offset 24: .* found 0"),
    "five dimensions": (gguf([], [tensor("w", (1, 1, 1, 1, 1), 0, 0)], DATA),
        r"tensor 'w' at offset 24: expected 1 to 4 dimensions, found 5"),
    "2^32 - 1 dimensions": (gguf([], [string("w") + u32(2**32 - 1) + bytes(20)], DATA),
        r"tensor 'w' at offset 24: expected 1 to 4 dimensions, found 4294967295"),
    "a dimension of 0": (gguf([], [tensor("w", (4, 0), 0, 0)], DATA), r"'w' at offset 24: .* F32"),
    "half a block": (gguf([], [tensor("w", (48,), 3, 0)], bytes(30)),
        r"tensor 'w' at offset 24: expected rows of whole Q4_1 blocks of 32: \(48,\)"),
    "misaligned": (gguf([], [tensor("w", (4,), 0, 4)], bytes(20)),
        r"tensor 'w' at offset 24: expected data at a multiple of 32, found 4"),
    "data cut": (gguf([], [F32_TENSOR], DATA[:-1]),
        r"tensor 'w' \(4,\) F32 at offset 64: expected 16 bytes, the file ends at 79"),
    "offset out of range": (gguf([], [tensor("w", (4,), 0, 2**63)], DATA),
        rf"tensor 'w' \(4,\) F32 at offset {2**63 + 64}: expected 16 bytes"),
    "2^128 values": (gguf([], [tensor("w", (2**32,) * 4, 0, 0)], DATA),
        rf"tensor 'w' .* at offset 96: expected {2**130} bytes"),
    "tensor twice": (gguf([], [F32_TENSOR, F32_TENSOR], DATA), r"tensor 'w' .* each tensor once"),
    "overlap": (gguf([], [tensor("a", (16,), 0, 0), tensor("b", (4,), 0, 32)], bytes(64)),
        r"tensor 'b' at offset 128: expected no overlap with tensor 'a'"),
}  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_header_is_one_error_with_its_offset(broken: str) -> None:
    data, message = BROKEN[broken]
    with allocating_less_than(1 << 20), pytest.raises(ModelFormatError, match=message) as error:
        parse_header(data, "model.gguf")
    assert str(error.value).startswith("model.gguf: ")
    assert "\n" not in str(error.value)


NOT_READ = [
    (gguf([], [tensor("w", (256,), 16, 0)], bytes(66)),
        r"'w' has type IQ2_XXS, which Octavo does not run: download the model's Q4_K_M or IQ4_XS"),
    (gguf([], [tensor("w", (256,), 34, 0)], bytes(54)), r"has type TQ1_0, .*: download the model"),
    (gguf([], [tensor("w", (32,), 40, 0)], bytes(36)), r"type NVFP4, .* run: it reads F32, F16"),
    (gguf([], [tensor("w", (32,), 99, 0)], bytes(99)), r"tensor 'w' has type 99 \(no known type\)"),
    (gguf([], [], version=1), r"GGUF version 1; Octavo reads 2 and 3"),
    (b"GGUF" + struct.pack(">I", 3) + bytes(16), r"big-endian"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "message"), NOT_READ)
def test_well_formed_files_that_octavo_does_not_read(data: bytes, message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        parse_header(data, "model.gguf")


@pytest.mark.parametrize("version", [2, 3])
def test_both_versions_are_read_alike(version: int) -> None:
    header = parse_header(gguf([], [F32_TENSOR], DATA, version=version), "model.gguf")
    assert header.version == version
    assert header.tensors["w"].offset == 64


def test_text_for_people_that_is_not_utf8_is_noted_and_replaced() -> None:
    """It used to keep the model from loading; the bytes of tokens still have to be right."""
    names = strings("general.tags", ["\xe9", "b"]).replace(string("b"), string(b"b\xc3"))
    name = entry("general.name", STRING, string(b"\xe9t\xe9"))
    header = parse_header(gguf([name, names], []), "f")
    assert header.metadata == {"general.name": "\ufffdt\ufffd", "general.tags": ["\xe9", "b\ufffd"]}
    assert header.notes == [
        f"metadata 'general.{key}' is not valid UTF-8: \ufffd stands for what is wrong in it"
        for key in ("name", "tags")
    ]


def test_the_alignment_of_the_file_moves_its_data() -> None:
    data = gguf([entry("general.alignment", U32, u32(128))], [F32_TENSOR]).ljust(128, b"\0") + DATA
    assert parse_header(data, "model.gguf").tensors["w"].offset == 128


def test_a_count_that_a_huge_file_could_hold_is_still_refused(tmp_path: Path) -> None:
    """A sparse 64 GiB file has room for 2^33 bytes of array; reading them would take 8 GiB."""
    path = tmp_path / "huge.gguf"
    path.write_bytes(gguf([entry("k", ARRAY, u32(0) + u64(2**33))], []))
    with path.open("r+b") as file:
        file.truncate(2**36)
    with (
        allocating_less_than(1 << 20),
        pytest.raises(ModelFormatError, match=r"length of metadata 'k' at offset 41: .* 4194304"),
    ):
        GGUFFile.open(path)


SMALL = small_model()


def flipped(flips: list[tuple[int, int]]) -> bytes:
    data = bytearray(SMALL)
    for position, bit in flips:
        data[position] ^= 1 << bit
    return bytes(data)


def put(new: bytes, start: int, end: int) -> bytes:
    return SMALL[:start] + new + SMALL[end:]


def table(tensors: list[bytes], alignment: int | None, size: int) -> bytes:
    entries = [] if alignment is None else [entry("general.alignment", U32, u32(alignment))]
    return gguf(entries, tensors, bytes(size))


POSITIONS = st.integers(0, len(SMALL) - 1)
BITS, SIZES = st.tuples(POSITIONS, st.integers(0, 7)), st.integers(0, 512)
NUMBERS = st.sampled_from([0, 1, 4, 2**16, 2**31, 2**32, 2**62, 2**63, HUGE - 8, HUGE]).map(u64)
TYPES = st.sampled_from([0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 30, 9, 77])
DIMS = st.lists(st.sampled_from([0, 1, 31, 32, 256, 2**32, HUGE]), max_size=5).map(tuple)
OFFSETS = st.sampled_from([0, 1, 32, 64, 2**40, HUGE - 31])
TENSORS = st.builds(tensor, st.sampled_from(["a", "b", "c"]), DIMS, TYPES, OFFSETS)
ALIGNMENTS = st.sampled_from([None, 0, 1, 8, 32, 2**31])
FUZZ = {
    "bit flips": st.lists(BITS, min_size=1, max_size=8).map(flipped),
    "numbers anywhere": st.builds(lambda at, n: put(n, at, at + 8), POSITIONS, NUMBERS),
    "cuts and insertions": st.builds(put, st.binary(max_size=40), POSITIONS, POSITIONS),
    "any bytes after a good start": st.binary(max_size=200).map(lambda b: b"GGUF" + u32(3) + b),
    "tensor tables": st.builds(table, st.lists(TENSORS, max_size=3), ALIGNMENTS, SIZES),
}


@pytest.mark.parametrize("kind", FUZZ)
@settings(max_examples=200)
@given(drawn=st.data())
def test_fuzz_is_refused_or_has_tensors_that_lie_apart_inside_the_file(
    kind: str, drawn: st.DataObject
) -> None:
    data = drawn.draw(FUZZ[kind])
    try:
        header = parse_header(data, "fuzz.gguf")
    except OctavoError:
        return
    end = 0
    for info in sorted(header.tensors.values(), key=lambda t: t.offset):
        assert end <= info.offset
        end = info.offset + info.nbytes
    assert end <= len(data)


def test_every_truncation_is_refused() -> None:
    for size in range(len(SMALL)):
        with pytest.raises(ModelFormatError):
            parse_header(SMALL[:size], "cut.gguf")
    parse_header(SMALL, "whole.gguf")
