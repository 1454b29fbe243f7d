"""`convert`: what answers the same, what takes whose place, and what is left after a failure."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tokenizers
from numpy.typing import NDArray

from octavo.convert import convert as module
from octavo.convert.convert import convert
from octavo.errors import ModelError, UnsupportedModelError, UsageError
from octavo.serving.llm import LLM
from octavo.weights.gguf_model import reference_weights
from octavo.weights.model_header import read_header
from tests.cli.tiny_model import TEMPLATE, write_tiny_model
from tests.families.directories import golden_of, write_directory

IDS = [int(i) for i in np.random.default_rng(0).integers(0, 256, 60)]


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("convert") / "tiny.gguf")


def logits(path: Path) -> NDArray[np.float32]:
    return LLM(str(path), threads=1).logits(IDS)


def files(path: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in path.iterdir()}


def test_as_float32_a_directory_answers_like_its_file(gguf: Path, tmp_path: Path) -> None:
    """But for the order of a head's dimensions, and so of sums over them."""
    done = convert(gguf, tmp_path / "hf", dtype="f32")
    assert (done.kv_heads, done.rounding.relative) == (2, 0.0)
    want = logits(gguf)
    np.testing.assert_allclose(logits(tmp_path / "hf"), want, rtol=0, atol=1e-2 * want.std())


def test_copies_of_heads_answer_bit_for_bit_like_the_heads(gguf: Path, tmp_path: Path) -> None:
    convert(gguf, tmp_path / "two")
    for source, name in ((gguf, "of the file"), (tmp_path / "two", "of a directory")):
        done = convert(source, tmp_path / name, kv_heads=4)
        assert (done.kv_heads_before, done.kv_heads) == (2, 4)
        assert read_header(tmp_path / name).config.kv_heads == 4
        assert np.array_equal(logits(tmp_path / name), logits(tmp_path / "two"))
    convert(tmp_path / "of the file", tmp_path / "back", kv_heads=2)
    assert np.array_equal(logits(tmp_path / "back"), logits(tmp_path / "two"))


def test_fewer_heads_are_the_mean_of_k_and_of_v(gguf: Path, tmp_path: Path) -> None:
    convert(gguf, tmp_path / "one", kv_heads=1, dtype="f32")
    before, after = read_header(gguf), read_header(tmp_path / "one")
    old = reference_weights(before, before.program().weights())
    new = reference_weights(after, after.program().weights())
    mean = old["blk.1.attn_v.weight"].reshape(2, 16, 64).mean(axis=0)
    assert np.array_equal(new["blk.1.attn_v.weight"], mean)
    assert np.array_equal(new["blk.1.ffn_up.weight"], old["blk.1.ffn_up.weight"])


def test_rounding_is_told_and_is_to_the_nearest(gguf: Path, tmp_path: Path) -> None:
    done = convert(gguf, tmp_path / "hf")
    assert 1e-4 < done.rounding.relative < 2.0**-8
    assert done.nbytes == 2 * sum(
        int(np.prod(info.shape)) for info in read_header(gguf).tensors.values()
    )


def test_the_tokenizer_is_written_for_the_library_itself(gguf: Path, tmp_path: Path) -> None:
    convert(gguf, tmp_path / "hf")
    text = "hi 12 <|im_end|>\n ok"
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "hf" / "tokenizer.json"))
    ids = LLM(str(tmp_path / "hf"), threads=1).encode(text, parse_special=True)
    assert library.encode(text).ids == ids
    assert (tmp_path / "hf" / "chat_template.jinja").read_text() == TEMPLATE


def test_places_that_are_taken(gguf: Path, tmp_path: Path) -> None:
    convert(gguf, tmp_path / "hf")
    before = files(tmp_path / "hf")
    for to in (tmp_path / "hf", tmp_path / "hf" / "inside", tmp_path):
        with pytest.raises(UsageError, match="is, holds or lies in what is converted"):
            convert(tmp_path / "hf", to, kv_heads=4, force=True)
    with pytest.raises(
        UsageError, match="is there already: name another directory, or give --force"
    ):
        convert(gguf, tmp_path / "hf", kv_heads=4)
    (tmp_path / "link").symlink_to(tmp_path / "hf")
    with pytest.raises(UsageError, match="is a link: name the directory itself"):
        convert(gguf, tmp_path / "link", force=True)
    (tmp_path / "link").unlink()
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "a.txt").write_text("kept")
    with pytest.raises(UsageError, match="is no model directory"):
        convert(gguf, tmp_path / "papers", force=True)
    assert (tmp_path / "papers" / "a.txt").read_text() == "kept"
    assert files(tmp_path / "hf") == before
    convert(gguf, tmp_path / "hf", kv_heads=4, force=True)
    assert read_header(tmp_path / "hf").config.kv_heads == 4
    assert sorted(each.name for each in tmp_path.iterdir()) == ["hf", "papers"]


def test_numbers_of_heads_that_cannot_be_had_name_those_that_can(
    gguf: Path, tmp_path: Path
) -> None:
    for number in (0, 3, 5, 8, -1):
        with pytest.raises(UsageError, match=f"--kv-heads {number}: .* can have 1, 2 or 4$"):
            convert(gguf, tmp_path / "hf", kv_heads=number)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("variant", ["phi3", "falcon", "gemma3-with-images"])
def test_families_whose_heads_are_not_tensors_of_their_own(variant: str, tmp_path: Path) -> None:
    golden = golden_of(variant)
    source = write_directory(tmp_path / "src", variant, golden["shapes"], golden["seed"])
    with pytest.raises(UnsupportedModelError, match="KV heads cannot be changed where"):
        convert(source, tmp_path / "to", kv_heads=1)


def test_a_failure_leaves_nothing_and_what_stood_there(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(gguf, tmp_path / "hf")
    before = files(tmp_path / "hf")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def broken(*_: Any) -> None:
        raise KeyboardInterrupt

    for fails, error in ((full, ModelError), (broken, KeyboardInterrupt)):
        monkeypatch.setattr(module, "write_weights", fails)
        with pytest.raises(error):
            convert(gguf, tmp_path / "hf", kv_heads=4, force=True)
        assert files(tmp_path / "hf") == before
        assert sorted(each.name for each in tmp_path.iterdir()) == ["hf"]


def test_what_a_killed_one_left_is_taken_away(gguf: Path, tmp_path: Path) -> None:
    (tmp_path / ".hf.converting").mkdir()
    (tmp_path / ".hf.converting" / "model.safetensors").write_bytes(b"half")
    convert(gguf, tmp_path / "hf")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["hf"]


def test_too_little_space_is_told_before(
    gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ModelError, match="the disk has 1,000 left"):
        convert(gguf, tmp_path / "hf")
    assert list(tmp_path.iterdir()) == []


def test_a_weight_that_is_missing_is_named(gguf: Path, tmp_path: Path) -> None:
    source = tmp_path / "cut.gguf"
    source.write_bytes(gguf.read_bytes().replace(b"blk.1.ffn_up.weight", b"blk.9.ffn_up.weight"))
    with pytest.raises(ModelError, match="ffn_up"):
        convert(source, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_directory_s_other_files_come_along(tmp_path: Path) -> None:
    golden = golden_of("qwen2")
    source = write_directory(tmp_path / "src", "qwen2", golden["shapes"], golden["seed"], shards=2)
    (source / "generation_config.json").write_text('{"eos_token_id": 7}')
    convert(source, tmp_path / "to", kv_heads=1)
    assert {*files(tmp_path / "to")} == {
        "config.json", "generation_config.json", "model.safetensors", "README.md", "tokenizer.json"
    }  # fmt: skip
    config = json.loads((tmp_path / "to" / "config.json").read_text())
    assert config["num_key_value_heads"] == 1
    assert (tmp_path / "to" / "tokenizer.json").read_bytes() == (
        source / "tokenizer.json"
    ).read_bytes()
