"""Whole GGUF files: values, tensors, the mapping's lifetime; the `gguf` package as oracle."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from octavo.errors import ModelFormatError, ModelNotFoundError, OctavoError, OutOfMemoryError
from octavo.weights.dequantize import dequantize
from octavo.weights.ggml_type import GGMLType
from octavo.weights.gguf import GGUFFile
from tests.weights.gguf_bytes import small_model


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.gguf"
    path.write_bytes(small_model())
    return path


def mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


def resident_kb(path: Path) -> int:
    """Resident KiB of this process's mapping of `path`."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.endswith(str(path)):
            return int(next(line for line in lines if line.startswith("Rss:")).split()[1])
    raise AssertionError(f"{path} is not mapped")


def test_reads_metadata_and_tensors(small: Path) -> None:
    with GGUFFile.open(small) as file:
        types = file.metadata.pop("tokenizer.ggml.token_type")
        assert isinstance(types, np.ndarray)
        assert types.tolist() == [3, 1, 1]
        assert file.metadata == {
            "general.architecture": "llama",
            "llama.block_count": 2,
            "llama.eps": float(np.float32(1e-5)),
            "tokenizer.ggml.add_bos_token": True,
            "tokenizer.ggml.tokens": ["<s>", "Ġ", "日本"],
        }
        assert file.version == 3
        embed, norm = file.tensors["embed"], file.tensors["norm"]
        assert (embed.shape, embed.type, embed.nbytes) == ((2, 32), GGMLType.Q8_0, 68)
        assert (norm.shape, norm.type, norm.nbytes) == ((4,), GGMLType.F32, 16)
        assert norm.offset == embed.offset + 96
        assert file.data("embed").tolist() == list(range(68))
        assert dequantize(norm.type, file.data("norm"), norm.shape).tolist() == [1, 2, 3, 4]


def test_data_is_read_only_and_in_place_and_close_refuses_while_it_is_alive(small: Path) -> None:
    file = GGUFFile.open(small)
    assert mapped(small)
    view = file.data("norm")
    assert not view.flags.writeable
    assert not view.flags.owndata
    with pytest.raises(BufferError):
        file.close()
    assert view.size == 16
    del view
    file.close()
    file.close()  # twice is fine
    assert not mapped(small)
    types = file.metadata["tokenizer.ggml.token_type"]  # what was parsed stays
    assert isinstance(types, np.ndarray)
    assert types.tolist() == [3, 1, 1]


def test_an_error_inside_with_is_not_hidden_by_arrays_it_keeps_alive(small: Path) -> None:
    def fail_with(view: np.ndarray) -> None:
        raise ZeroDivisionError(view.size)

    with pytest.raises(ZeroDivisionError), GGUFFile.open(small) as file:
        fail_with(file.data("norm"))


def test_an_error_that_keeps_arrays_alive_keeps_no_file_open(small: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    with contextlib.suppress(ZeroDivisionError), GGUFFile.open(small) as file:
        view = file.data("norm")
        raise ZeroDivisionError
    assert mapped(small)
    del view, file
    assert not mapped(small)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_refused_file_is_neither_mapped_nor_open(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(small_model()[:-1])
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(ModelFormatError):
        GGUFFile.open(path)
    assert not mapped(path)
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (errno.ENOMEM, OutOfMemoryError, ": memory is short: raise the limit (`ulimit -v`)"),
        (errno.ENODEV, ModelNotFoundError, ": No such device"),
    ],
)
def test_a_file_that_the_system_does_not_map_is_refused_by_name(
    number: int, kind: type[OctavoError], said: str, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(mmap, "mmap", refuse)
    with pytest.raises(kind, match=re.escape(f"cannot map {small}{said}")):
        GGUFFile.open(small)


def test_drop_takes_the_tensors_whole_pages_out_of_memory(tmp_path: Path) -> None:
    path = tmp_path / "big.gguf"
    write_with_package(path, {"a": np.zeros((64, 1024), np.float32), "b": np.ones(4, np.float32)})
    with GGUFFile.open(path) as file:
        info = file.tensors["a"]
        assert int(file.data("a").sum()) == 0  # touches all 256 KiB
        before = resident_kb(path)
        file.drop("a")
        page = os.sysconf("SC_PAGESIZE")
        whole = (info.offset + info.nbytes) // page - -(-info.offset // page)
        assert whole >= 62
        assert resident_kb(path) == before - whole * page // 1024
        file.drop("b")  # less than a page: nothing to give back
        assert dequantize(GGMLType.F32, file.data("b"), (4,)).tolist() == [1, 1, 1, 1]


def test_the_header_of_a_file_that_stayed_the_same_is_read_once(
    small: Path, headers_read: list[str]
) -> None:
    with GGUFFile.open(small) as first:
        norm = first.data("norm").tolist()
    with GGUFFile.open(small, first) as second:
        assert headers_read == [str(small)]
        assert (second.metadata, second.tensors) == (first.metadata, first.tensors)
        assert second.data("norm").tolist() == norm


@pytest.mark.parametrize("change", ["written to", "cut", "replaced"])
def test_the_header_of_a_file_that_changed_is_read_again(
    change: str, small: Path, headers_read: list[str]
) -> None:
    with GGUFFile.open(small) as first:
        pass
    status, content = small.stat(), small.read_bytes()
    times = (status.st_atime_ns, status.st_mtime_ns)
    if change == "written to":
        times = (times[0], times[1] + 1)
    elif change == "cut":
        os.truncate(small, status.st_size - 1)
    else:
        small.with_name("new").write_bytes(content)
        small.with_name("new").replace(small)
    os.utime(small, ns=times)
    if change == "cut":
        with pytest.raises(ModelFormatError, match=r"the file ends at \d+ \(truncated\?\)"):
            GGUFFile.open(small, first)
    else:
        GGUFFile.open(small, first).close()
    assert headers_read == [str(small)] * 2


def test_a_file_that_is_cut_before_it_is_mapped_is_held_against_what_is_mapped(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its size was asked for when it was whole: offsets of then would lie behind the mapping."""
    with GGUFFile.open(small) as first:
        pass
    map_file = mmap.mmap

    def cut_and_map(descriptor: int, length: int, *, access: int) -> mmap.mmap:
        os.truncate(small, small.stat().st_size - 1)
        return map_file(descriptor, length, access=access)

    monkeypatch.setattr(mmap, "mmap", cut_and_map)
    with pytest.raises(ModelFormatError, match=r"the file ends at \d+ \(truncated\?\)"):
        GGUFFile.open(small, first)


def test_paths_that_are_no_model_files(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"cannot open .*none\.gguf: No such file"):
        GGUFFile.open(tmp_path / "none.gguf")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ModelFormatError, match="not a regular file"):
            GGUFFile.open(path)
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(ModelFormatError, match="file is empty"):
        GGUFFile.open(tmp_path / "empty.gguf")


ONE_OF_EACH = {
    "uint8": 200, "int8": -3, "uint16": 60_000, "int16": -30_000, "uint64": 2**63 + 1,
    "int64": -(2**62), "float64": 0.1, "bool": True, "string": "ünï\0code",
}  # fmt: skip


def write_with_package(path: Path, arrays: dict[str, np.ndarray]) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    for kind, value in ONE_OF_EACH.items():
        getattr(writer, f"add_{kind}")(f"t.{kind}", value)
    for values in ([0.5, -1.5], [True, False], ["", "a", "Ġ日"]):
        writer.add_array(f"t.{values}", values)
    for name, array in arrays.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def assert_equals_package(path: Path) -> None:
    """Every field and every tensor's bytes, as the `gguf` package reads them."""
    oracle = gguf.GGUFReader(path)
    with GGUFFile.open(path) as file:
        fields = {key: f for key, f in oracle.fields.items() if not key.startswith("GGUF.")}
        assert list(file.metadata) == list(fields)
        for key, value in file.metadata.items():
            got = value.tolist() if isinstance(value, np.ndarray) else value
            assert got == fields[key].contents(), key
        assert list(file.tensors) == [t.name for t in oracle.tensors]
        for want in oracle.tensors:
            info = file.tensors[want.name]
            assert info.shape == tuple(int(d) for d in want.shape[::-1])
            assert (info.type, info.offset) == (int(want.tensor_type), want.data_offset)
            assert np.array_equal(file.data(want.name), want.data.reshape(-1).view(np.uint8))


def test_equals_the_gguf_package_on_a_file_it_wrote(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "written.gguf"
    arrays: dict[str, NDArray[Any]] = {
        "m": rng.standard_normal((3, 7), dtype=np.float32),
        "cube": rng.standard_normal((2, 3, 5)).astype(np.float16),
        "v": np.ones(1, np.float32),
    }
    write_with_package(path, arrays)
    assert_equals_package(path)
    with GGUFFile.open(path) as file:
        got = dequantize(GGMLType.F16, file.data("cube"), file.tensors["cube"].shape)
        np.testing.assert_array_equal(got, arrays["cube"].astype(np.float32))


def test_equals_the_gguf_package_on_smollm2(smollm2_path: Path) -> None:
    assert_equals_package(smollm2_path)
