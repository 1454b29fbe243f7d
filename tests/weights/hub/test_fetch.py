"""Models from a hub: what is fetched, what is not fetched again, what revisions and a cut line do,
and who gets the token."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi, constants

from octavo.errors import DownloadError
from octavo.weights.hub.fetch import fetch
from octavo.weights.hub.name import parse
from octavo.weights.library import find
from octavo.weights.model_header import read_header
from tests.weights.hub.fake_hub import COMMIT, FakeHub, Files, etag_of, serve

TINY = parse("hf:owner/tiny")
WEIGHTS = "model.safetensors"


def test_a_directory_is_fetched_and_read(hub: FakeHub, cache: Path, files: Files) -> None:
    hub.commits[COMMIT] = files | {"README.md": b"much", "pytorch_model.bin": b"more"}
    shown: list[tuple[int, int, str]] = []
    path = fetch(TINY, progress=lambda *each: shown.append(each))
    assert path == cache / "models--owner--tiny" / "snapshots" / COMMIT
    assert {each.name: each.read_bytes() for each in path.iterdir()} == files
    assert hub.gets() == sorted(files)
    size = len(files[WEIGHTS])
    assert shown[0][2] == "downloading hf:owner/tiny, all but its weights"
    assert shown[-1] == (size, size, "downloading hf:owner/tiny")
    assert shown == sorted(shown, key=lambda each: (each[2] == shown[-1][2], each[0]))
    header = read_header(path)
    assert len(header.tokenizer_spec().tokens) == header.config.vocab_size


def test_what_is_here_costs_one_question(hub: FakeHub, files: Files, home: Path) -> None:
    path = fetch(TINY)
    hub.asked.clear()
    shown: list[tuple[int, int, str]] = []
    assert fetch(TINY, progress=lambda *each: shown.append(each)) == path
    assert find("hf:owner/tiny", home=home) == path
    assert [each.what for each in hub.asked] == ["list main"] * 2
    assert shown == []


def test_files_whose_etag_stays_are_not_fetched_again(hub: FakeHub, files: Files) -> None:
    first = fetch(TINY)
    hub.asked.clear()
    other = "b" * 40
    hub.commits[other] = files | {"generation_config.json": b'{"temperature": 0.5}'}
    hub.names["main"] = other
    second = fetch(TINY)
    assert second == first.with_name(other)
    assert hub.gets() == ["generation_config.json"]
    assert (second / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert (second / WEIGHTS).resolve() == (first / WEIGHTS).resolve()


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: FakeHub, files: Files) -> None:
    other = "b" * 40
    hub.commits[other] = files | {"generation_config.json": b'{"temperature": 0.5}'}
    hub.names["v2"] = other
    found = fetch(parse("hf:owner/tiny@v2"))
    assert (found.name, fetch(parse(f"hf:owner/tiny@{other}"))) == (other, found)
    assert fetch(TINY).name == COMMIT


@pytest.mark.parametrize("text", ["hf:owner/tiny", "hf:owner/tiny:m.gguf"])
def test_a_branch_that_moves_while_it_is_fetched_changes_nothing(
    text: str, hub: FakeHub, cache: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was asked for by name once it had moved was put into the other commit, and lacked."""
    other = "b" * 40
    hub.commits[COMMIT] = {**files, "m.gguf": b"old"}
    hub.commits[other] = dict.fromkeys(hub.commits[COMMIT], b"new")
    ask = HfApi.model_info

    def ask_and_move(*args: Any, **options: Any) -> Any:
        found = ask(*args, **options)
        hub.names["main"] = other
        return found

    monkeypatch.setattr(HfApi, "model_info", ask_and_move)
    path = fetch(parse(text))
    folder = path if path.is_dir() else path.parent
    assert folder.name == COMMIT
    for each in folder.iterdir():
        assert each.read_bytes() == hub.commits[COMMIT][each.name]
    hub.busy = True
    assert fetch(parse(text)) == path
    assert sorted(each.name for each in folder.parent.iterdir()) == [COMMIT]


def test_a_name_is_remembered_once_all_is_there(hub: FakeHub, cache: Path, files: Files) -> None:
    """Until then a start without a network uses what the name meant before."""
    first = fetch(TINY)
    other = "b" * 40
    hub.commits[other] = files | {"config.json": files["config.json"] + b" ", WEIGHTS: b"other"}
    hub.names["main"], hub.cut_after, hub.cuts = other, 0, 1

    def stop(done: int, total: int, what: str) -> None:
        if not what.endswith("weights"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(TINY, progress=stop)
    assert (first.with_name(other) / "config.json").exists()
    hub.busy = True
    assert fetch(TINY) == first


def test_shards_are_those_of_the_index(hub: FakeHub, files: Files) -> None:
    index = b'{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}'
    rest = {name: data for name, data in files.items() if name != WEIGHTS}
    shards = {"a.safetensors": b"one", "b.safetensors": b"two"}
    also = {"consolidated.safetensors": b"the same again"}
    hub.commits[COMMIT] = rest | shards | also | {"model.safetensors.index.json": index}
    path = fetch(TINY)
    assert {name: (path / name).read_bytes() for name in shards} == shards
    assert "consolidated.safetensors" not in hub.gets()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_line_that_drops_is_taken_up_again(hub: FakeHub, files: Files, ranges: bool) -> None:
    hub.cut_after, hub.ranges = 10_000, ranges
    path = fetch(TINY)
    assert (path / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert hub.ranges_of(WEIGHTS) == [None, "bytes=10000-"]


def test_a_hub_that_is_busy_for_a_while_is_asked_again(
    hub: FakeHub, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("octavo.weights.hub.blob.time", SimpleNamespace(sleep=slept.append))
    hub.stumbles = 5
    assert (fetch(TINY) / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert slept == [1] * 5


def test_a_second_run_goes_on_where_the_first_was_cut(
    hub: FakeHub, cache: Path, files: Files
) -> None:
    hub.cut_after = 10_000

    def stop(done: int, *_: object) -> None:
        if done == 10_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(TINY, progress=stop)
    blobs = cache / "models--owner--tiny" / "blobs"
    (partial,) = blobs.glob("*.incomplete")
    assert partial.stat().st_size == 10_000
    hub.asked.clear()
    path = fetch(TINY)
    assert hub.ranges_of(WEIGHTS) == ["bytes=10000-"]
    assert hub.gets() == [WEIGHTS]
    assert (path / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert list(blobs.glob("*.incomplete")) == []


def test_more_than_the_whole_is_begun_again(hub: FakeHub, cache: Path, files: Files) -> None:
    blobs = cache / "models--owner--tiny" / "blobs"
    blobs.mkdir(parents=True)
    name = etag_of(WEIGHTS, files[WEIGHTS]) + ".octavo.incomplete"
    (blobs / name).write_bytes(files[WEIGHTS] + b"x")
    assert (fetch(TINY) / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert hub.ranges_of(WEIGHTS) == [None]


def test_weights_that_are_not_what_their_etag_says_are_deleted(hub: FakeHub, cache: Path) -> None:
    hub.spoiled = True
    with pytest.raises(DownloadError, match=r"model\.safetensors was fetched with sha256 .* del"):
        fetch(TINY)
    assert list(cache.rglob("*.incomplete")) == list(cache.rglob("model.safetensors")) == []
    hub.spoiled = False
    assert (fetch(TINY) / WEIGHTS).exists()


def test_two_at_once_fetch_once(hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    began, go_on = threading.Event(), threading.Event()

    def hold(done: int, total: int, what: str) -> None:
        if not what.endswith("weights") and not began.is_set():
            began.set()
            go_on.wait(10)

    with ThreadPoolExecutor() as pool:
        first = pool.submit(fetch, TINY, progress=hold)
        assert began.wait(10)
        second = pool.submit(fetch, TINY, progress=hold)
        while "another process fetches model.safetensors" not in caplog.text:
            assert not second.done()
        go_on.set()
        assert first.result() == second.result()
    assert hub.ranges_of(WEIGHTS) == [None]


def test_the_token_goes_to_the_hub_and_to_nobody_else(
    hub: FakeHub, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with serve(FakeHub(hub.commits)) as cdn:
        hub.cdn = cdn.url
        path = fetch(TINY)
    assert (path / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert {each.token for each in hub.asked} == {"Bearer hf_secret"}
    assert [(each.what, each.token) for each in cdn.asked] == [(WEIGHTS, None)]


def test_without_a_network_what_is_cached_is_used(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = fetch(TINY)
    asked = len(hub.asked)
    caplog.clear()
    with monkeypatch.context() as offline:
        offline.setattr(constants, "HF_HUB_OFFLINE", True)
        assert fetch(TINY) == path
    assert (caplog.records, len(hub.asked)) == ([], asked)
    hub.busy = True
    assert fetch(TINY) == path
    (record,) = caplog.records
    assert record.getMessage() == (
        "hf:owner/tiny: the hub is not asked (HTTP 503): what is cached is used"
    )


def test_what_is_fetched_is_told_once(hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        fetch(TINY)
    assert [each.getMessage().split(":")[0] for each in caplog.records] == ["downloading hf"] * 2


def test_blobs_lie_where_other_programs_look(hub: FakeHub, cache: Path, files: Files) -> None:
    path = fetch(TINY)
    blob = cache / "models--owner--tiny" / "blobs" / etag_of(WEIGHTS, files[WEIGHTS])
    assert (path / WEIGHTS).resolve() == blob.resolve()
    assert (cache / "models--owner--tiny" / "refs" / "main").read_text() == COMMIT
