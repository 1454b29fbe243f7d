"""What of huggingface_hub's cache is listed: models that are whole and run, by the names that lead
to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo.weights.hub.fetch import fetch
from octavo.weights.hub.name import parse
from octavo.weights.library import cached_from_hub
from tests.cli.tiny_model import write_tiny_model
from tests.weights.hub.fake_hub import COMMIT, FakeHub, Files

WEIGHTS = "model.safetensors"
OTHER = "b" * 40


def listed() -> list[tuple[str, Path, int]]:
    return [(each.name, each.path, each.nbytes) for each in cached_from_hub()]


def test_no_cache_has_no_models(cache: Path) -> None:
    assert listed() == []
    cache.parent.mkdir()
    cache.write_bytes(b"a file")
    assert listed() == []


def test_a_directory_and_files_beside_it_are_listed_without_a_question(
    hub: FakeHub, files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gguf = write_tiny_model(tmp_path / "tiny.gguf").read_bytes()
    hub.commits[COMMIT] = files | {
        "config.json": files["config.json"].replace(b"{", b'{"auto_map": {}, ', 1),
        "q/tiny.gguf": gguf,
        "q/broken.gguf": gguf[:1000],
    }
    folder = fetch(parse("hf:owner/tiny"))
    for file in ("tiny", "broken"):
        fetch(parse(f"hf:owner/tiny:q/{file}.gguf"))
    hub.asked.clear()
    caplog.clear()
    assert listed() == [
        ("hf:owner/tiny", folder, len(files[WEIGHTS])),
        ("hf:owner/tiny:q/tiny.gguf", folder / "q/tiny.gguf", len(gguf)),
    ]
    assert (hub.asked, caplog.messages) == ([], [])


def test_other_revisions_are_named(hub: FakeHub, files: Files) -> None:
    hub.commits[OTHER] = files
    hub.names["v1"] = OTHER
    fetch(parse("hf:owner/tiny@v1"))
    assert [each[0] for each in listed()] == ["hf:owner/tiny@v1"]
    fetch(parse("hf:owner/tiny"))
    assert [each[0] for each in listed()] == ["hf:owner/tiny", "hf:owner/tiny@v1"]


def test_what_no_branch_leads_to_any_more_has_its_commit(hub: FakeHub, files: Files) -> None:
    fetch(parse("hf:owner/tiny"))
    hub.commits[OTHER] = files | {"generation_config.json": b'{"temperature": 0.5}'}
    hub.names["main"] = OTHER
    fetch(parse("hf:owner/tiny"))
    assert [each[0] for each in listed()] == ["hf:owner/tiny", f"hf:owner/tiny@{COMMIT}"]


def test_what_is_not_whole_or_would_be_refused_is_left_out(hub: FakeHub, files: Files) -> None:
    folder = fetch(parse("hf:owner/tiny"))
    config = (folder / "config.json").read_bytes()
    (folder / "config.json").unlink()
    assert listed() == []
    (folder / "config.json").write_bytes(config.replace(b"LlamaForCausalLM", b"BertModel"))
    assert listed() == []
    (folder / "config.json").write_bytes(config)
    assert len(listed()) == 1
    (folder / WEIGHTS).unlink()
    assert listed() == []


def test_data_sets_and_old_names_are_no_models(hub: FakeHub, cache: Path) -> None:
    fetch(parse("hf:owner/tiny"))
    (cache / "models--owner--tiny").rename(cache / "models--tiny")
    assert listed() == []
    (cache / "models--tiny").rename(cache / "datasets--owner--tiny")
    assert listed() == []
