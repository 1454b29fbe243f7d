"""`octavo rm`, and what `list` and `verify` say of packed weights."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from octavo.cli import models as models_verb
from octavo.weights import library, removal
from octavo.weights.library import LIBRARY
from octavo.weights.pack_cache import LIMIT
from tests.cli.result import GREEDY, Octavo, refused
from tests.cli.tiny_model import TINY, spm_entries, write_tiny_model
from tests.serving.test_pack_keeper import wait_for_keepers
from tests.weights.hub.pointed import cache_in


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr("octavo.weights.huge_pages.share_of_huge", lambda data: 1.0)
    with cache_in(monkeypatch, tmp_path / "hf") as folder:
        yield folder


def names(home: Path) -> list[str]:
    """The files in a home, by their folder."""
    return sorted(str(p.relative_to(home)).split("/")[0] for p in home.rglob("*") if p.is_file())


def keep(octavo: Octavo, model: str) -> None:
    if Path(model).exists():
        os.utime(model, (1e9, 1e9))  # what has just been written is not remembered
    assert octavo("run", model, "hello", "--pack-cache", *GREEDY).code == 0
    wait_for_keepers()


@pytest.fixture
def tiny(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library model, here."""
    path = home / "models" / "tiny" / "tiny.gguf"
    path.parent.mkdir(parents=True)
    more = spm_entries("{{ messages[-1].content }}")  # of these the merges are kept
    write_tiny_model(path, name="Tiny in the library", more=more)
    os.utime(path, (1e9, 1e9))
    content = path.read_bytes()
    model = replace(
        LIBRARY["smollm2"], name="tiny", file_name=path.name, nbytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )  # fmt: skip
    with_tiny = {"tiny": model, **LIBRARY}
    for module in (library, removal, models_verb):
        monkeypatch.setattr(module, "LIBRARY", with_tiny)
    assert library.find("tiny", home=home) == path
    return path


def test_a_library_model_goes_with_all_that_is_cached_of_it(
    octavo: Octavo, home: Path, tiny: Path
) -> None:
    keep(octavo, "tiny")
    keep(octavo, TINY)
    assert names(home) == ["fingerprints.json", "models", "packed", "packed", "tokenizers"]
    (kept,) = [
        p for p in home.glob("packed/*") if p.name.startswith(library.LIBRARY["tiny"].sha256)
    ]
    (tokenizer,) = home.glob("tokenizers/*")
    sizes = [each.stat().st_size for each in (tiny, kept, tokenizer)]
    found = octavo("rm", "tiny", "--json").json
    assert found == {
        "model": "tiny",
        "bytes": sum(sizes),
        "removed": [
            {"what": "model", "path": str(tiny), "bytes": sizes[0]},
            {"what": "packed weights", "path": str(kept), "bytes": sizes[1]},
            {"what": "tokenizer", "path": str(tokenizer), "bytes": sizes[2]},
        ],
    }
    assert names(home) == ["fingerprints.json", "packed"]
    assert not tiny.parent.exists()
    assert str(tiny) not in (home / "fingerprints.json").read_text()
    again = "tiny is not on this machine, and nothing is cached of it"
    assert octavo("rm", "tiny") == refused(again, code=1)


def test_of_a_model_given_by_path_only_what_is_cached_goes(
    octavo: Octavo, home: Path, models: Path
) -> None:
    keep(octavo, TINY)
    result = octavo("rm", TINY)
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert [line.split("  ")[0] for line in lines[:-1]] == ["packed weights"]
    assert lines[-1].startswith(f"removed of {TINY}: ")
    assert (models / TINY).exists()
    assert names(home) == ["fingerprints.json"]
    assert json.loads((home / "fingerprints.json").read_text()) == {}
    assert octavo("rm", TINY).code == 1


def test_packed_weights_of_a_file_that_is_gone_go_too(
    octavo: Octavo, home: Path, tmp_path: Path
) -> None:
    path = write_tiny_model(tmp_path / "gone.gguf")
    os.utime(path, (1e9, 1e9))
    keep(octavo, str(path))
    path.unlink()
    assert octavo("list", "--json").json["packed"][0]["model"] == str(path)
    assert [each["what"] for each in octavo("rm", str(path), "--json").json["removed"]] == [
        "packed weights"
    ]
    assert list(home.glob("packed/*")) == []


@pytest.mark.parametrize("name", ["nothing", "hf:owner/nothing", "~nobody-here/x", "/", "no.gguf"])
def test_what_is_no_library_model_and_not_cached_is_refused(octavo: Octavo, name: str) -> None:
    complaint = (
        f"{name!r} is no library model (smollm2, gemma3-270m), and nothing is cached of it: "
        "`octavo list` shows what is"
    )
    assert octavo("rm", name) == refused(complaint, code=1)
    assert octavo("rm", name, "--json").json == {"error": complaint, "exit_code": 1}


def test_of_a_model_on_the_hub_the_files_stay(octavo: Octavo, home: Path, cache: Path) -> None:
    snapshot = cache / "models--owner--tiny" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    path = write_tiny_model(snapshot / "tiny.gguf")
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text(snapshot.name)
    keep(octavo, str(path))
    found = octavo("rm", "hf:owner/tiny:tiny.gguf", "--json").json
    assert [each["what"] for each in found["removed"]] == ["packed weights"]
    assert path.exists()
    assert list(home.glob("packed/*")) == []


def test_list_shows_what_is_kept(octavo: Octavo, home: Path, tiny: Path, models: Path) -> None:
    keep(octavo, "tiny")
    keep(octavo, TINY)
    first, second = sorted(home.glob("packed/*"), key=lambda p: "0" not in p.name)
    for path, when in ((first, 2e9), (second, 1e9)):
        os.utime(path, (when, when))
    found = octavo("list", "--json").json
    assert (found["packed_limit"], len(found["packed"])) == (LIMIT, 2)
    assert [each["used"] for each in found["packed"]] == [2e9, 1e9]
    assert {each["model"] for each in found["packed"]} == {"tiny", str(models / TINY)}
    assert {each["path"] for each in found["packed"]} == {str(first), str(second)}
    assert all(each["bytes"] == first.stat().st_size for each in found["packed"])
    *_, head, one, two, total = octavo("list").out.splitlines()
    assert head.split("  ")[0] == "PACKED WEIGHTS OF"
    assert {one.split()[0], two.split()[0]} == {"tiny", str(models / TINY)}
    assert "2033-05-1" in one
    assert total.startswith("all, of at most 16 GiB")


def test_verify_reads_kept_weights_whole_and_removes_them_if_they_are_damaged(
    octavo: Octavo, home: Path
) -> None:
    keep(octavo, TINY)
    (path,) = home.glob("packed/*")
    assert "damaged" not in octavo("verify", TINY).err
    content = bytearray(path.read_bytes())
    content[2 << 20] ^= 1
    path.write_bytes(content)
    result = octavo("verify", TINY)
    assert result.code == 0
    assert result.err.startswith(
        f"octavo: {path} was damaged and is removed: it is written again\n"
    )
    assert not path.exists()
