"""`octavo pull` and `octavo list`, and the pull that `run` does by itself; no network."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from octavo.errors import DownloadError
from octavo.model.registry import ARCHITECTURES
from octavo.weights import library
from octavo.weights.library import LIBRARY
from tests.cli.result import Octavo, refused
from tests.cli.tiny_model import write_tiny_model
from tests.weights.hub.pointed import cache_in

SMOLLM2 = LIBRARY["smollm2"]


def install(home: Path, sha256: str = SMOLLM2.sha256) -> Path:
    """A file of the right size, of which it is remembered that it has this checksum."""
    path = SMOLLM2.path(home)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(SMOLLM2.nbytes)
    stat = path.stat()
    stamp = [stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    (home / "fingerprints.json").write_text(json.dumps({str(path.resolve()): [stamp, sha256]}))
    return path


@pytest.fixture
def pulled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    pulled: list[str] = []

    def pull(name: str, *, home: Path, progress: Callable[[int, int, str], None]) -> Path:
        pulled.append(name)
        progress(0, 100_000_000, "downloading it")
        progress(50_000_000, 100_000_000, "downloading it")
        progress(0, 100_000_000, "unpacking it")
        return install(home)

    monkeypatch.setattr("octavo.weights.download.pull", pull)
    return pulled


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with cache_in(monkeypatch, tmp_path / "hf") as folder:
        yield folder


def test_list_says_what_is_here(octavo: Octavo, home: Path) -> None:
    assert octavo("list").out == (
        "NAME             SIZE  HERE  RUNS\n"
        "smollm2      93.8 MiB    no   yes\n"
        "gemma3-270m   241 MiB    no   yes\n"
    )
    path = install(home)
    found = octavo("list", "--json").json
    assert found["home"] == str(home)
    facts = [(m["installed"], m["supported"], m["path"]) for m in found["models"]]
    assert facts == [(True, True, str(path)), (False, True, None)]


def test_list_says_what_of_the_hub_is_here_and_runs(octavo: Octavo, cache: Path) -> None:
    snapshot = cache / "models--owner--tiny" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    path = write_tiny_model(snapshot / "tiny.gguf")
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text(snapshot.name)
    nbytes = path.stat().st_size
    assert octavo("list").out.splitlines()[-1].split() == [
        "hf:owner/tiny:tiny.gguf", *f"{nbytes / 2**10:.0f} KiB".split(), "yes", "yes"
    ]  # fmt: skip
    assert octavo("list", "--json").json["models"][-1] == {
        "name": "hf:owner/tiny:tiny.gguf", "bytes": nbytes, "installed": True, "damaged": False,
        "supported": True, "path": str(path),
    }  # fmt: skip


def test_a_damaged_model_is_said_and_pulled(octavo: Octavo, home: Path, pulled: list[str]) -> None:
    path = install(home, sha256="0" * 64)
    why = f"{path} is damaged (sha256 {'0' * 64}): `octavo pull smollm2` fetches it again"
    assert octavo("run", "smollm2", "hi") == refused(why, code=1)
    assert "smollm2      93.8 MiB  damaged   yes\n" in octavo("list").out
    assert octavo("list", "--json").json["models"][0]["damaged"] is True
    again = octavo("pull", "smollm2", "--json")
    assert again.err.startswith("octavo: smollm2 is damaged here and is fetched again\n")
    assert again.json["downloaded"] is True
    assert octavo("list", "--json").json["models"][0]["damaged"] is False
    assert pulled == ["smollm2"]


@pytest.mark.parametrize("verb", [("run", "NAME", "hi"), ("plan", "NAME"), ("verify", "NAME")])
def test_a_library_model_that_does_not_run_is_not_fetched_to_be_refused(
    octavo: Octavo, pulled: list[str], monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]
) -> None:
    strange = {"strange": replace(SMOLLM2, name="strange", architecture="gamma")}
    monkeypatch.setattr(library, "LIBRARY", strange)
    result = octavo(*(word.replace("NAME", "strange") for word in verb))
    assert (result.code, pulled) == (1, [])
    assert result.err.startswith("octavo: strange is not on this machine and could not be run: ")
    again = octavo("pull", "strange", "--json")  # who asks for it gets it, and is told
    why = f"architecture 'gamma' is not supported: {', '.join(sorted(ARCHITECTURES))} are"
    assert again.err.startswith(f"octavo: strange cannot be run: {why}\n")
    assert (again.json["supported"], pulled) == (False, ["strange"])


def test_pull_fetches_once_with_its_progress(octavo: Octavo, home: Path, pulled: list[str]) -> None:
    first = octavo("pull", "smollm2", "--json")
    assert first.json == {
        "name": "smollm2", "path": str(SMOLLM2.path(home)), "bytes": SMOLLM2.nbytes,
        "sha256": SMOLLM2.sha256, "supported": True, "downloaded": True,
    }  # fmt: skip
    assert first.err.startswith(
        "octavo: pulling smollm2\ndownloading it: 0 B of 95.4 MiB\nunpacking it: 0 B of 95.4 MiB\n"
    )
    second = octavo("pull", "smollm2")
    assert second.out == f"smollm2 was here already: {SMOLLM2.path(home)}\n"
    assert pulled == ["smollm2"]


def test_an_unknown_name_is_refused_with_near_ones(octavo: Octavo, pulled: list[str]) -> None:
    result = octavo("pull", "smollm")
    assert (result.code, result.out, pulled) == (1, "", [])
    assert "did you mean smollm2?" in result.err


def test_run_pulls_a_library_model_that_is_missing(octavo: Octavo, pulled: list[str]) -> None:
    result = octavo("run", "smollm2", "hi")
    assert (result.code, pulled) == (1, ["smollm2"])  # what was "fetched" is no model
    assert "expected b'GGUF'" in result.err


def test_a_pull_that_fails_is_one_line(octavo: Octavo, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, *, home: Path, progress: object) -> None:
        raise DownloadError("cannot fetch smollm2: no network. Check the network")

    monkeypatch.setattr("octavo.weights.download.pull", fail)
    result = octavo("pull", "smollm2")
    assert (result.code, result.out) == (1, "")
    assert result.err.endswith("octavo: cannot fetch smollm2: no network. Check the network\n")


def test_bad_usage_is_found_before_anything_is_pulled(octavo: Octavo, pulled: list[str]) -> None:
    for flags in (["--top-p", "2"], ["--raw", "--system", "s"], ["--kv-dtype", "f8"]):
        assert octavo("run", "smollm2", "hi", *flags).code == 2
    assert octavo("bench", "decode", "smollm2", "--rounds", "0").code == 2
    assert pulled == []


def test_the_progress_bar_of_a_terminal_follows_the_download(
    octavo: Octavo, pulled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octavo.cli.loading.sys.stderr.isatty", lambda: True, raising=False)
    result = octavo("pull", "smollm2")
    assert (result.code, pulled) == (0, ["smollm2"])
    assert "downloading it" in result.err
    assert "unpacking it" in result.err
