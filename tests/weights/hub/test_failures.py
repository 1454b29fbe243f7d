"""What keeps a model from being fetched: each in one line that says what to do."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from octavo.errors import (
    DownloadError,
    ModelError,
    ModelFormatError,
    ModelNotFoundError,
    OctavoError,
    UnsupportedModelError,
)
from octavo.weights.hub.fetch import fetch
from octavo.weights.hub.name import parse
from tests.weights.hub.fake_hub import COMMIT, FakeHub, Files
from tests.weights.hub.pointed import point_at

TINY = "hf:owner/tiny"
NOBODY = "http://127.0.0.1:1"  # where nobody answers


def refused(kind: type[OctavoError], text: str = TINY) -> str:
    with pytest.raises(kind) as error:
        fetch(parse(text))
    assert type(error.value) is kind
    assert "\n" not in str(error.value)
    return str(error.value)


def test_no_such_repository(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    said = f"hf:owner/other: no repository owner/other at {hub.url}, or"
    open_to_all = refused(ModelNotFoundError, "hf:owner/other")
    assert open_to_all == f"{said} it is private: check the name, or set HF_TOKEN to your token"
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    with_token = refused(ModelNotFoundError, "hf:owner/other")
    assert with_token == f"{said} the token in use may not read it: check the name and HF_TOKEN"


@pytest.mark.parametrize("status", [401, 403])
def test_gated(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    hub.refuses = status, "GatedRepo"
    page = f"{hub.url}/owner/tiny"
    assert refused(DownloadError) == (
        f"{TINY} is gated: ask for access at {page}, then set HF_TOKEN to your token"
    )
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    assert refused(DownloadError) == (
        f"{TINY} is gated, and the token in use may not read it: ask for access at {page}"
    )


def test_a_token_that_may_not(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    hub.refuses = 403, ""
    said = f"{TINY}: {hub.url} refuses access (HTTP 403): check the token in HF_TOKEN"
    assert refused(DownloadError) == said


def test_no_such_revision(hub: FakeHub) -> None:
    assert refused(ModelNotFoundError, f"{TINY}@v9") == (
        f"{TINY}@v9: owner/tiny has no revision 'v9': give a branch, a tag or a commit of it"
    )


def test_no_such_file(hub: FakeHub) -> None:
    hub.commits[COMMIT] |= {"tiny-Q8_0.gguf": b"x"}
    said = refused(ModelNotFoundError, f"{TINY}:q8_0")
    assert said == f"{TINY}:q8_0: no file 'q8_0' in owner/tiny; did you mean tiny-Q8_0.gguf?"


def test_offline_and_not_cached(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert refused(DownloadError) == (
        f"{TINY} is not (all) in {cache}, and the hub may not be asked: unset HF_HUB_OFFLINE, or "
        "fetch it on a machine with a network"
    )
    assert hub.asked == []


def test_offline_and_half_cached(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    (fetch(parse(TINY)) / "model.safetensors").unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "is not (all) in" in refused(DownloadError)


def test_nobody_answers(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(monkeypatch, NOBODY)
    said = refused(DownloadError)
    assert said.startswith(f"cannot fetch {TINY} from {NOBODY}: ")
    assert "check the network, and HF_ENDPOINT if it is set" in said


def test_a_line_that_stays_cut(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("octavo.weights.hub.blob.time", SimpleNamespace(sleep=slept.append))
    hub.cdn = NOBODY
    said = refused(DownloadError)
    assert slept == [1] * 5
    assert said.endswith("then run this again: it goes on where it stopped")
    hub.cdn, hub.cut_after, hub.cuts = None, 0, 99
    slept.clear()
    assert refused(DownloadError).endswith("then run this again: it goes on where it stopped")
    assert slept == [1] * 5


@pytest.mark.parametrize(
    ("listing", "why"),
    [
        (b"<html>log in</html>", "its list of files cannot be read"),
        (b"[]", "its list of files cannot be read"),
        (b'{"id": "owner/tiny", "sha": "../x", "siblings": []}', "'../x' is its commit"),
    ],
)
def test_what_answers_is_no_hub(hub: FakeHub, listing: bytes, why: str) -> None:
    hub.listing = listing
    assert refused(DownloadError) == (
        f"cannot fetch {TINY}: what answers at {hub.url} is no hub ({why}): check HF_ENDPOINT, and "
        "whether the network wants a log-in"
    )


def test_an_etag_that_leads_elsewhere_names_no_file(hub: FakeHub, cache: Path) -> None:
    hub.told = {"ETag": '"../../stolen"'}
    assert "is no hub (model.safetensors has ETag '../../stolen' and " in refused(DownloadError)
    assert list(cache.rglob("stolen*")) == []


def test_weights_that_are_empty(hub: FakeHub) -> None:
    hub.commits[COMMIT] |= {"m.gguf": b""}
    said = refused(ModelFormatError, f"{TINY}:m.gguf")
    assert said == f"{TINY}:m.gguf: m.gguf is empty in owner/tiny"
    assert "m.gguf" not in hub.gets()


def test_files_outside_of_the_repository_are_none(hub: FakeHub) -> None:
    hub.commits[COMMIT] = {"../../x.gguf": b"x"}
    assert refused(UnsupportedModelError).endswith("and no GGUF file")


def test_no_space(hub: FakeHub, files: Files, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = SimpleNamespace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    hub.commits[COMMIT]["big.gguf"] = bytes(3 * 2**20)
    assert refused(DownloadError, f"{TINY}:big.gguf") == (
        f"fetching {TINY}:big.gguf takes 3 MiB, and {cache} has 1 MiB free; free space there, or "
        "set HF_HOME to a folder on another disk"
    )
    assert "big.gguf" not in hub.gets()


@pytest.mark.parametrize(
    ("number", "mend"),
    [
        (errno.ENOSPC, "free space there, or set HF_HOME to a folder on another disk"),
        (errno.EROFS, "set HF_HOME to a folder that can be written"),
    ],
)
def test_a_disk_that_takes_no_more(
    hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch, number: int, mend: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, "as the disk says")

    monkeypatch.setattr("octavo.weights.hub.fetch.fetch_blob", fail)
    said = f"cannot store {TINY} in {cache}: as the disk says; {mend}"
    assert refused(DownloadError) == said


def without_config(files: Files) -> None:
    del files["config.json"]


def of_bert(files: Files) -> None:
    files["config.json"] = json.dumps({"architectures": ["BertModel"]}).encode()


def without_tokenizer(files: Files) -> None:
    del files["tokenizer.json"]
    files["tokenizer.model"] = b"x"


def with_a_shard_too_few(files: Files) -> None:
    del files["model.safetensors"]
    index = {"weight_map": {"x": "model-00001-of-00001.safetensors"}}
    files["model.safetensors.index.json"] = json.dumps(index).encode()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_config, f"{TINY} has safetensors and no config.json"),
        (of_bert, "BertModel"),
        (without_tokenizer, "only tokenizer.model"),
        (with_a_shard_too_few, "index.json names model-00001-of-00001.safetensors, which owner/"),
    ],
)
def test_what_would_be_refused_is_not_fetched(
    hub: FakeHub, change: Callable[[Files], None], said: str
) -> None:
    change(hub.commits[COMMIT])
    with pytest.raises(ModelError, match=said):
        fetch(parse(TINY))
    assert not any(each.endswith(".safetensors") for each in hub.gets())
