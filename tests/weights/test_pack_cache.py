"""The pack cache: what is kept under which name, and what of it is read again."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from octavo.config import PackedWeights
from octavo.kernels import available_isas, native
from octavo.model.config import ModelConfig
from octavo.weights import pack_cache
from octavo.weights.ggml_type import GGMLType
from octavo.weights.model_files import ModelFiles
from octavo.weights.model_header import ModelHeader
from octavo.weights.pack_cache import kept_packs, remove_damaged
from octavo.weights.weight_view import Views, WeightView
from tests.kernels.gguf_blocks import OWN_FORMAT, random_blocks
from tests.weights.packs import POOL, SHA, file_of, keep, used, weights_of
from tests.weights.test_packed_file import assert_same


@pytest.fixture(autouse=True)
def huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octavo.weights.huge_pages.share_of_huge", lambda data: 1.0)


def test_what_was_kept_is_found_and_a_use_is_noted(header: ModelHeader, home: Path) -> None:
    file = file_of(header, home)
    assert file.read() is None
    assert kept_packs(home) == []
    keep(header, home)
    used(file.path, 1000)
    (kept,) = kept_packs(home)
    assert (kept.path, kept.fingerprint, kept.model) == (file.path, SHA, str(header.path))
    found = file.read()
    assert found is not None
    assert_same(found, weights_of(header))
    assert kept_packs(home)[0].used > kept.used + 900
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_the_name_says_all_that_the_bytes_depend_on(
    header: ModelHeader, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: tuple[PackedWeights | None, ...] = (None, "w8", "bf16", "w4")
    files = [file_of(header, home, asked=each) for each in asked]
    files.append(file_of(header, home, "cd" * 32))
    monkeypatch.setattr(pack_cache, "PACKING", pack_cache.PACKING + 1)
    files.append(file_of(header, home))
    assert len({file.key for file in files}) == len({file.path for file in files}) == 6


def digest_of_packing() -> str:
    """Of all that packing makes of any type of tensor."""
    rng, found = np.random.default_rng(11), hashlib.sha256()
    floats = [(type, fmt) for type in (GGMLType.F32, GGMLType.F16, GGMLType.BF16)
              for fmt in ("W8", "W4S", "BF16", "F32")]  # fmt: skip
    for type, fmt in (*OWN_FORMAT.items(), *((type, "BF16") for type in OWN_FORMAT), *floats):
        blocks = random_blocks(type, 33, 512, rng)
        found.update(native.pack_weight(POOL, blocks, int(type), 33, 512, fmt).view().data)
    return found.hexdigest()


def test_whoever_changes_the_packing_raises_its_version() -> None:
    """Else files that were kept before would be taken for what is packed now."""
    assert (pack_cache.PACKING, digest_of_packing()) == (
        1,
        "4ee242f06862bab1902a1eedc35e1b61aba8c98360e35b48e845720a69909889",
    )


@pytest.mark.parametrize("isa", available_isas())
def test_the_packing_is_the_same_on_every_level(isa: str) -> None:
    code = "from tests.weights.test_pack_cache import digest_of_packing as d; print(d())"
    found = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "OCTAVO_ISA": isa},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.strip() == digest_of_packing()


def test_what_is_no_good_costs_one_line_and_is_written_again(
    header: ModelHeader, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = keep(header, home)
    whole = file.path.read_bytes()
    file.path.write_bytes(whole[:-1])
    assert file.read() is None
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"{file.path}: expected {len(whole):,} bytes, found ")
    assert caplog.messages[0].endswith(": the model is packed again")
    keep(header, home)
    assert file.path.read_bytes() == whole
    assert file.read() is not None
    assert len(caplog.messages) == 1


def test_a_home_that_cannot_be_written_costs_one_line(
    header: ModelHeader, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home.mkdir()
    (home / "packed").write_bytes(b"")  # no folder: nothing can be put into it, by root neither
    keep(header, home)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"the packed weights cannot be kept in {home / 'packed'} ")
    assert kept_packs(home) == []


def test_a_folder_that_may_not_be_searched_costs_a_line(
    header: ModelHeader, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a name that is too long the system refuses to look, to root as well."""
    home.mkdir()
    file = file_of(header, home / ("x" * 300))
    assert file.read() is None
    assert caplog.messages == []
    file.write(weights_of(header), lambda: None)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"the packed weights cannot be kept in {file.path.parent}")


def test_what_is_no_file_or_not_ours_is_not_read(
    header: ModelHeader, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = keep(header, home)
    (home / "packed" / f"{SHA}-of-whom.packed").mkdir()
    assert [each.path for each in kept_packs(home)] == [file.path]
    assert remove_damaged(home, SHA) == []

    def refused(path: Path) -> bool:
        raise PermissionError

    monkeypatch.setattr(pack_cache, "is_sound", refused)
    assert remove_damaged(home, SHA) == []
    assert file.path.exists()


def test_files_whose_bytes_have_changed_are_removed(header: ModelHeader, home: Path) -> None:
    file, other = keep(header, home), keep(header, home, "ef" * 32)
    assert remove_damaged(home, SHA) == []
    for each in (file, other):
        content = bytearray(each.path.read_bytes())
        content[2 << 20] ^= 1
        each.path.write_bytes(content)
    assert [each.path for each in remove_damaged(home, SHA)] == [file.path]
    assert not file.path.exists()
    assert other.path.exists()


def test_a_view_of_other_rows_is_another_file(header: ModelHeader, home: Path) -> None:
    """A later Octavo may read the same tensor in another order."""
    other = replace(header, files=cast(ModelFiles, _Reordered(header.files)))
    assert file_of(other, home).key != file_of(header, home).key


class _Reordered:
    """The same files, whose first layer's rows of K are the tensor's, the other half first."""

    def __init__(self, files: object) -> None:
        self._files = files

    def __getattr__(self, name: str) -> object:
        return getattr(self._files, name)

    def views(self, config: ModelConfig) -> Views:
        half = config.kv_heads * config.head_dim // 2
        rows = (range(half, 2 * half), range(half))
        return {"attn_k": WeightView(rows=rows)}
