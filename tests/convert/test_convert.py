"""`convert`: what answers the same, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import tokenizers
from numpy.typing import NDArray

from octavo.convert.convert import convert
from octavo.convert.kv_heads import with_kv_heads
from octavo.errors import ModelError, UnsupportedModelError, UsageError
from octavo.serving.llm import LLM
from octavo.weights.model_header import read_header
from octavo.weights.model_weights import reference_weights
from tests.cli.tiny_model import TEMPLATE, write_tiny_model
from tests.families.directories import golden_of, write_directory
from tests.weights.gguf_in_parts import write_parts

IDS = [int(i) for i in np.random.default_rng(0).integers(0, 256, 60)]


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("convert") / "tiny.gguf")


def logits(path: Path, ids: list[int] = IDS) -> NDArray[np.float32]:
    return LLM(str(path), threads=1).logits(ids)


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


def test_numbers_of_heads_that_cannot_be_had_name_those_that_can(
    gguf: Path, tmp_path: Path
) -> None:
    for number in (0, 3, 5, 8, -1):
        with pytest.raises(UsageError, match=f"--kv-heads {number}: .* can have 1, 2 or 4$"):
            convert(gguf, tmp_path / "hf", kv_heads=number)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("heads", [1, 6])
def test_a_norm_of_the_whole_row_has_as_many_heads_as_k(heads: int, tmp_path: Path) -> None:
    golden = golden_of("olmo2")
    source = write_directory(tmp_path / "src", "olmo2", golden["shapes"], golden["seed"])
    convert(source, tmp_path / "same", kv_heads=2)
    convert(source, tmp_path / "to", kv_heads=heads)
    before, after = read_header(source), read_header(tmp_path / "to")
    old = reference_weights(before, before.program().weights())["blk.0.attn_k_norm.weight"]
    new = reference_weights(after, after.program().weights())["blk.0.attn_k_norm.weight"]
    want = with_kv_heads(old, 2, heads)
    np.testing.assert_allclose(new, want, rtol=2.0**-8)
    if heads == 6:
        ids = [*range(60)]
        want, got = logits(tmp_path / "same", ids), logits(tmp_path / "to", ids)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-2 * want.std())


@pytest.mark.parametrize(
    ("bits", "dtype", "why"),
    [
        (0x7FC0_0000, "f32", "no numbers"),
        (0x7FC0_0000, "bf16", "no numbers"),
        (0x7F7F_FFFF, "bf16", "too large for bf16"),
    ],
)
def test_values_that_cannot_be_written_are_refused(
    bits: int, dtype: Literal["f32", "bf16"], why: str, gguf: Path, tmp_path: Path
) -> None:
    convert(gguf, tmp_path / "hf", dtype="f32")
    weights = tmp_path / "hf" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + bits.to_bytes(4, "little"))
    with pytest.raises(ModelError, match=f"hf: tensor '.*' has values .*{why}"):
        convert(tmp_path / "hf", tmp_path / "to", kv_heads=4, dtype=dtype)
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("variant", ["phi3", "falcon", "granite-hybrid", "gemma3-with-images"])
def test_families_whose_heads_are_not_tensors_of_their_own(variant: str, tmp_path: Path) -> None:
    golden = golden_of(variant)
    source = write_directory(tmp_path / "src", variant, golden["shapes"], golden["seed"])
    with pytest.raises(UnsupportedModelError, match="KV heads cannot be changed where"):
        convert(source, tmp_path / "to", kv_heads=1)


def test_a_file_in_parts_is_written_like_the_whole_one(gguf: Path, tmp_path: Path) -> None:
    whole = tmp_path / "tiny.gguf"
    whole.write_bytes(gguf.read_bytes())
    convert(write_parts(whole, 3)[0], tmp_path / "of parts")
    convert(whole, tmp_path / "of one")
    found = files(tmp_path / "of parts")["model.safetensors"]
    assert found == files(tmp_path / "of one")["model.safetensors"]


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
    for name in ("special_tokens_map.json", "LICENSE", "train.py"):
        (source / name).write_text("{}")
    convert(source, tmp_path / "to", kv_heads=1)
    assert {*files(tmp_path / "to")} == {
        "config.json", "generation_config.json", "model.safetensors", "README.md",
        "tokenizer.json", "special_tokens_map.json", "LICENSE",
    }  # fmt: skip
    config = json.loads((tmp_path / "to" / "config.json").read_text())
    assert config["num_key_value_heads"] == 1
    assert (tmp_path / "to" / "tokenizer.json").read_bytes() == (
        source / "tokenizer.json"
    ).read_bytes()


def test_what_a_file_lacks_is_said_with_one_path(gguf: Path, tmp_path: Path) -> None:
    source = tmp_path / "mute.gguf"
    source.write_bytes(gguf.read_bytes().replace(b"tokenizer.ggml.model", b"tokenizer.none.model"))
    with pytest.raises(ModelError) as refused:
        convert(source, tmp_path / "to")
    assert str(refused.value).startswith(f"{source}: metadata has no 'tokenizer.ggml.model'")
