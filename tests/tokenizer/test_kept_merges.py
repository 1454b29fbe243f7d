"""The merges that are kept: found by content, never half written, found again when damaged."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from octavo.tokenizer import Tokenizer, kept_merges
from octavo.tokenizer.spm import merges_from_scores
from tests.tokenizer.fixture_specs import load_spec


def test_the_second_load_reads_what_the_first_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Tokenizer.from_spec(load_spec("tiny_spm"), cache_dir=tmp_path / "new")
    assert len(list((tmp_path / "new").iterdir())) == 1
    monkeypatch.setattr(kept_merges, "merges_from_scores", None)  # to find them again would fail
    spec = load_spec("tiny_spm")
    second = Tokenizer.from_spec(spec, cache_dir=tmp_path / "new")
    text = "The 42 pages   are folded.\n\n猫 <tool>"
    assert second.encode(text) == first.encode(text)
    assert (kept_merges.load(spec, tmp_path / "new") == merges_from_scores(spec)).all()


def test_merges_that_the_model_lists_are_not_kept(tmp_path: Path) -> None:
    spec = load_spec("tiny_spm")
    pairs = [" ".join(spec.tokens[i] for i in pair) for pair in merges_from_scores(spec)]
    listed = Tokenizer.from_spec(load_spec("tiny_spm", merges=pairs), cache_dir=tmp_path)
    Tokenizer.from_spec(load_spec("tiny_bpe"), cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert listed.encode("The pages") == Tokenizer.from_spec(spec).encode("The pages")


@pytest.mark.parametrize("damage", [b"", b"junk", b"\n", None])
def test_a_damaged_file_is_replaced(
    damage: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = load_spec("tiny_spm")
    Tokenizer.from_spec(spec, cache_dir=tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] if damage is None else damage)
    with caplog.at_level(logging.WARNING):
        tokenizer = Tokenizer.from_spec(spec, cache_dir=tmp_path)
    assert "damaged" in caplog.text
    assert path.read_bytes() == whole
    assert tokenizer.decode(tokenizer.encode("page")) == "page"


@pytest.mark.parametrize(
    "changes",
    [
        {"eos_id": 300},
        {"tokens": [*load_spec("tiny_spm").tokens[:-1], "     "]},
        {"scores": [*(load_spec("tiny_spm").scores or [])[:-1], -1e6]},
        {"token_types": [*load_spec("tiny_spm").token_types[:-1], 3]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_spec_has_another_file(changes: dict[str, Any], tmp_path: Path) -> None:
    Tokenizer.from_spec(load_spec("tiny_spm"), cache_dir=tmp_path)
    Tokenizer.from_spec(load_spec("tiny_spm", **changes), cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_merges_and_where_a_token_ends_belong_to_the_digest() -> None:
    spec = load_spec("tiny_bpe")
    assert spec.digest("x") != spec.digest("y")
    assert spec.digest("x") != load_spec("tiny_bpe", merges=spec.merges[:-1]).digest("x")
    tokens = list(spec.tokens)
    tokens[300], tokens[301] = tokens[300] + tokens[301][0], tokens[301][1:]
    assert "".join(tokens) == "".join(spec.tokens)
    assert spec.digest("x") != load_spec("tiny_bpe", tokens=tokens).digest("x")


def test_a_failed_write_is_said_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(source: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    Tokenizer.from_spec(load_spec("tiny_spm"), cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []
    (said,) = caplog.messages
    assert said.startswith(f"cannot keep the tokenizer's merges in {tmp_path} (disk full): ")


def test_a_cache_folder_that_cannot_be_made_is_said_and_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    tokenizer = Tokenizer.from_spec(load_spec("tiny_spm"), cache_dir=tmp_path / "file" / "cache")
    assert tokenizer.decode(tokenizer.encode("as ever")) == "as ever"
    assert "OCTAVO_HOME" in caplog.text
