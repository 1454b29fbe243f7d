"""The cache of built tokenizers: found by content, never half written, rebuilt when damaged."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from octavo.errors import ModelFormatError
from octavo.tokenizer import Tokenizer, document
from tests.tokenizer.fixture_specs import load_spec, load_tokenizer, with_pieces


@pytest.mark.parametrize("name", ["tiny_bpe", "tiny_spm"])
def test_the_second_load_reads_what_the_first_wrote(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = load_spec(name)
    first = Tokenizer.from_spec(spec, cache_dir=tmp_path / "new")
    assert len(list((tmp_path / "new").iterdir())) == 1
    monkeypatch.setattr(document, "document", None)  # to build one again would fail
    second = Tokenizer.from_spec(load_spec(name), cache_dir=tmp_path / "new")
    text = "The 42 pages   are folded.\n\n猫 <tool>"
    assert second.encode(text) == first.encode(text)


@pytest.mark.parametrize("damage", [b"", b"junk", b"\n", None])
def test_a_damaged_file_is_built_again_and_replaced(
    damage: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = load_spec("tiny_bpe")
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
        {"pre": "qwen2"},
        {"eos_id": 603},
        {"tokens": [*load_spec("tiny_bpe").tokens[:-1], "     "]},
        {"merges": load_spec("tiny_bpe").merges[:-1]},
        {"token_types": [*load_spec("tiny_bpe").token_types[:-1], 3]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_spec_has_another_file(changes: dict[str, Any], tmp_path: Path) -> None:
    Tokenizer.from_spec(load_spec("tiny_bpe"), cache_dir=tmp_path)
    Tokenizer.from_spec(load_spec("tiny_bpe", **changes), cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_scores_and_where_a_token_ends_belong_to_the_digest() -> None:
    spec = load_spec("tiny_spm")
    scores = [*spec.scores[:-1], spec.scores[-1] - 1.0]
    assert spec.digest("x") != load_spec("tiny_spm", scores=scores).digest("x")
    assert spec.digest("x") != spec.digest("y")
    spec = load_spec("tiny_bpe")
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
    Tokenizer.from_spec(load_spec("tiny_bpe"), cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []
    (said,) = caplog.messages
    assert said.startswith(f"cannot keep the tokenizer in {tmp_path} (disk full): ")


def test_a_cache_folder_that_cannot_be_made_is_said_and_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    tokenizer = Tokenizer.from_spec(load_spec("tiny_bpe"), cache_dir=tmp_path / "file" / "cache")
    assert tokenizer.decode(tokenizer.encode("as ever")) == "as ever"
    assert "OCTAVO_HOME" in caplog.text


def test_a_merge_of_a_missing_token_is_a_broken_model() -> None:
    with pytest.raises(ModelFormatError, match=r"tokens and merges do not fit: .*qq"):
        load_tokenizer("tiny_bpe", merges=["q qq"])


def test_a_merge_that_makes_more_than_the_longest_token_is_a_broken_model() -> None:
    """The library panicked over it, which passes every `except Exception`."""
    tokens = list(load_spec("tiny_bpe").tokens)
    longest = max(tokens, key=lambda piece: len(piece.encode()))
    tokens[tokens.index(longest)] = "renamed"
    with pytest.raises(ModelFormatError, match=r"tokens and merges do not fit: '.* .*' makes no"):
        load_tokenizer("tiny_bpe", tokens=tokens)


def test_a_merge_that_looks_like_a_file_header_is_kept() -> None:
    """The library's reader of one-string merges drops lines that begin with "#version"."""
    spec = load_spec("tiny_spm")
    assert spec.scores is not None
    pieces = ["#v", "#ve", "#ver", "#vers", "#versi", "#versio", "#version", "#versions", "#"]
    pieces = [piece for piece in pieces if piece not in spec.tokens]
    scores = [*spec.scores, *(float(len(piece)) for piece in pieces)]
    longer = replace(with_pieces(spec, *pieces), scores=scores)
    ids = Tokenizer.from_spec(longer).encode("#versions", add_special=False)
    assert ids == [longer.tokens.index("#versions")]
