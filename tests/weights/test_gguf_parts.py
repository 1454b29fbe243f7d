"""Files of several parts: any part opens all, and parts that are not of one model are refused."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from octavo import LLM, SamplingParams
from octavo.errors import ModelError, ModelFormatError, ModelNotFoundError
from octavo.weights.fingerprint import fingerprint
from octavo.weights.gguf_parts import GGUFParts
from octavo.weights.model_header import read_header
from octavo.weights.part_names import part_paths
from tests.cli.tiny_model import write_tiny_model
from tests.weights.gguf_bytes import ARRAY, STRING, U32, entry, string, strings, tensor, u32, u64
from tests.weights.gguf_bytes import gguf as gguf_file
from tests.weights.gguf_in_parts import part_name, split_entries, write_parts


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "tiny.gguf")


def answer(path: Path) -> tuple[int, ...]:
    greedy = SamplingParams(temperature=0, max_tokens=12)
    (output,) = LLM(path).generate(["one two"], greedy)
    return output.outputs[0].token_ids


def test_any_part_opens_the_whole_model(whole: Path) -> None:
    want = answer(whole)
    header = read_header(whole)
    for path in write_parts(whole, 3):
        found = read_header(path)
        assert found.config == header.config
        assert {i.file for i in found.tensors.values()} == {p.name for p in part_paths(path)}
        assert found.tokenizer_spec().tokens == header.tokenizer_spec().tokens
        assert found.tensor_types() == header.tensor_types()
        assert found.files.nbytes() == sum(p.stat().st_size for p in part_paths(path))
        assert answer(path) == want


def test_only_the_parts_that_changed_are_read_again(whole: Path, headers_read: list[str]) -> None:
    paths = write_parts(whole, 3)
    header = read_header(paths[1])
    os.utime(paths[2], ns=(1, 1))
    del headers_read[:]
    with header.files.open_tensors() as parts:
        assert headers_read == [str(paths[2])]
        assert parts.tensors == header.tensors


def test_parts_that_the_gguf_package_wrote(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=2)
    arrays = {f"t{i}": np.full((3, 32), i, np.float32) for i in range(5)}
    for name, values in arrays.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with GGUFParts.open(tmp_path / part_name("m", 2, 3)) as parts:
        assert list(parts.tensors) == list(arrays)
        assert parts.metadata["general.architecture"] == "llama"
        assert parts.tensors["t4"].file == "m-00003-of-00003.gguf"
        for name, values in arrays.items():
            assert parts.data(name).tobytes() == values.tobytes()


def test_all_parts_make_the_fingerprint(whole: Path, tmp_path: Path) -> None:
    paths = write_parts(whole, 2)
    digests = {fingerprint(path, home=None) for path in paths}
    assert len(digests) == 1
    assert {fingerprint(path, home=tmp_path / "home") for path in paths} == digests
    raw = bytearray(paths[1].read_bytes())
    raw[-1] ^= 1
    paths[1].write_bytes(raw)
    assert fingerprint(paths[0], home=None) not in digests


def test_missing_parts_are_named(whole: Path) -> None:
    paths = write_parts(whole, 5)
    before = sorted(os.listdir("/proc/self/fd"))
    paths[1].unlink()
    said = f"{paths[3]} is one of 5 parts: {paths[1].name} is not beside it: fetch all parts"
    with pytest.raises(ModelNotFoundError, match=f"^{re.escape(said)}$"):
        read_header(paths[3])
    for path in (paths[0], paths[2], paths[4]):
        path.unlink()
    three = ", ".join(path.name for path in paths[:3])
    with pytest.raises(ModelNotFoundError, match=re.escape(f"{three} and 1 more are not beside")):
        read_header(paths[3])
    assert sorted(os.listdir("/proc/self/fd")) == before


W = tensor("w", (4,), 0, 0)
ARCH = entry("general.architecture", STRING, string("llama"))


TWO = u32(U32) + u64(2) + u32(1) + u32(2)  # an array of two numbers


def write(path: Path, number: int, count: int, *, tensors: int = 2, arch: bytes = ARCH,
          name: str = "w") -> None:  # fmt: skip
    entries = [arch, *split_entries(number, count, tensors)]
    path.write_bytes(gguf_file(entries, [tensor(name, (4,), 0, 0)], bytes(16)))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "another number": (lambda p: write(p, 0, 2, name="v"),
        r"b-00002-of-00002.gguf is part 1 of 2 \(split\.no 0, split\.count 2\): expected a name "
        r"that ends in -00001-of-00002\.gguf"),
    "another count": (lambda p: write(p, 1, 3, name="v"),
        r"is part 2 of 3 .*: expected a name that ends in -00002-of-00003\.gguf"),
    "a number beyond the count": (lambda p: write(p, 2, 2, name="v"),
        r"is part 3 of 2 .*: expected split\.no 1 and split\.count 2, or another name"),
    "a whole model": (lambda p: p.write_bytes(gguf_file([ARCH], [W], bytes(16))),
        r"is a whole model \(split\.no 0, split\.count 1\): expected split\.no 1 and split\.count"),
    "a count that is text": (
        lambda p: p.write_bytes(
            gguf_file([entry("split.count", STRING, string("2"))], [W], bytes(16))
        ), r"split\.no 0, split\.count '2': expected whole numbers"),
    "a tensor twice": (lambda p: write(p, 1, 2),
        r"tensor 'w' is in b-00001-of-00002\.gguf too: expected each tensor in one part"),
    "other metadata": (
        lambda p: write(p, 1, 2, name="v", arch=entry("general.architecture", U32, u32(1))),
        r"metadata 'general\.architecture' differs from b-00001-of-00002\.gguf's"),
    "another total": (lambda p: write(p, 1, 2, name="v", tensors=3),
        r"metadata 'split\.tensors\.count' differs from"),
    "no model": (lambda p: p.write_bytes(b"no model"), r"magic at offset 0: expected b'GGUF'"),
}  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
def test_parts_that_contradict_are_refused_in_one_line(broken: str, tmp_path: Path) -> None:
    first, second = (tmp_path / part_name("b", i, 2) for i in (1, 2))
    write(first, 0, 2)
    make, message = BROKEN[broken]
    make(second)
    for path in (first, second):
        with pytest.raises(ModelFormatError, match=message) as error:
            GGUFParts.open(path)
        assert str(error.value).startswith(f"{second}")
        assert "\n" not in str(error.value)


def test_tensors_fewer_than_all_parts_should_have_are_refused(tmp_path: Path) -> None:
    for i in (0, 1):
        write(tmp_path / part_name("b", i + 1, 2), i, 2, tensors=9, name=f"t{i}")
    said = r"the 2 parts have 2 tensors: expected 9 \(split\.tensors\.count\)"
    with pytest.raises(ModelFormatError, match=said):
        GGUFParts.open(tmp_path / part_name("b", 1, 2))


LISTS = {"numbers": entry("x", ARRAY, TWO), "texts": strings("x", ["1", "2"]),
         "other texts": strings("x", ["1", "3"]), "a number": entry("x", U32, u32(1))}  # fmt: skip


@pytest.mark.parametrize("second", LISTS)
@pytest.mark.parametrize("first", LISTS)
def test_lists_in_the_metadata_of_two_parts(first: str, second: str, tmp_path: Path) -> None:
    paths = [tmp_path / part_name("b", i, 2) for i in (1, 2)]
    for number, (path, kind) in enumerate(zip(paths, (first, second), strict=True)):
        entries = [LISTS[kind], *split_entries(number, 2, 2)]
        path.write_bytes(gguf_file(entries, [tensor(f"t{number}", (4,), 0, 0)], bytes(16)))
    if first == second:
        with GGUFParts.open(paths[0]) as parts:
            assert len(parts.tensors) == 2
    else:
        with pytest.raises(ModelFormatError, match=r"metadata 'x' differs from b-00001-of-00002"):
            GGUFParts.open(paths[0])


@pytest.mark.parametrize("values", [1, 2])
def test_a_count_of_tensors_that_is_a_list_is_refused(values: int, tmp_path: Path) -> None:
    count = entry("split.tensors.count", ARRAY, u32(U32) + u64(values) + u32(2) * values)
    for i in (0, 1):
        entries = [*split_entries(i, 2, 2)[:2], count]
        table = [tensor(f"t{i}", (4,), 0, 0)]
        (tmp_path / part_name("b", i + 1, 2)).write_bytes(gguf_file(entries, table, bytes(16)))
    said = rf"2 tensors: expected an array of {values} uint32 \(split\.tensors\.count\)"
    with pytest.raises(ModelFormatError, match=said):
        GGUFParts.open(tmp_path / part_name("b", 1, 2))


def test_a_part_under_another_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "renamed.gguf"
    write(path, 1, 2)
    with pytest.raises(ModelError, match=r"ends in -00002-of-00002\.gguf$"):
        read_header(path)


@pytest.mark.parametrize("count", [0, 1])
def test_a_merged_file_is_a_whole_one(count: int, tmp_path: Path) -> None:
    """llama.cpp leaves split.count 0 in what it merges."""
    entries = [entry("split.count", 2, struct.pack("<H", count))]
    (tmp_path / "m.gguf").write_bytes(gguf_file(entries, [W], bytes(16)))
    with GGUFParts.open(tmp_path / "m.gguf") as parts:
        assert (list(parts.tensors), parts.tensors["w"].file) == (["w"], "")


@pytest.mark.parametrize(
    ("name", "count"),
    [("m-00001-of-00001.gguf", 1), ("m-00003-of-00002.gguf", 1), ("m-00000-of-00002.gguf", 1),
     ("m-1-of-2.gguf", 1), ("m-00001-of-00002.bin", 1), ("m.gguf", 1),
     ("m-00002-of-00003.gguf", 3)],
)  # fmt: skip
def test_what_names_say(name: str, count: int) -> None:
    paths = part_paths(Path("x") / name)
    assert (len(paths), Path("x") / name in paths) == (count, True)
