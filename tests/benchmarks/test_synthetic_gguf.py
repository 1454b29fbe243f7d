"""Files of random weights: whole, the same for the same seed, and read by another reader too."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import quants

from benchmarks.gguf_writer import Tensor, write
from benchmarks.synthetic_gguf import main, write_model
from benchmarks.synthetic_model import FORMATS, SHAPES, metadata, tensors
from octavo import LLM, SamplingParams
from octavo.tokenizer.tokenizer import Tokenizer
from octavo.weights.ggml_type import GGMLType
from octavo.weights.model_header import read_header


@pytest.mark.parametrize("shape", ["tiny", "tiny-experts"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_file_has_the_weights_it_is_said_to_have(tmp_path: Path, format: str, shape: str) -> None:
    path = write_model(shape, format, tmp_path)
    theirs = gguf.GGUFReader(path)
    assert theirs.get_field("general.file_type").contents() == FORMATS[format]
    said = {each.name: each for each in tensors(SHAPES[shape], format, seed=0)}
    assert [each.name for each in theirs.tensors] == list(said)
    for each in theirs.tensors:
        tensor = said[each.name]
        assert (each.tensor_type.name, *each.shape[::-1]) == (tensor.type.name, *tensor.shape)
        values = quants.dequantize(each.data, each.tensor_type)
        if len(tensor.shape) == 1:
            assert (values >= 1).all()  # norms are 1, and no rotation becomes faster
            continue
        if each.name == "token_embd.weight":  # the head too, which never says half a character
            assert (values[128:256] == 0).all()
            values = np.delete(values, range(128, 256), axis=0)
        assert (values != 0).any(axis=-1).all()
        spread = 1 / math.sqrt(tensor.shape[-1])
        # The mean of n values is off by less than 5 deviations of it, and of halves of a block.
        assert abs(values.mean()) < 5 * spread / math.sqrt(values.size)
        assert values.std() == pytest.approx(spread, rel=0.05)


@pytest.mark.parametrize("shape", ["tiny", "tiny-experts"])
def test_logits_are_of_a_size_that_a_model_has(tmp_path: Path, shape: str) -> None:
    for format in FORMATS:
        llm = LLM(str(write_model(shape, format, tmp_path)))
        logits = llm.logits(list(range(0, 1280, 40)))
        assert 0.7 < logits.std() < 1.4, format
        assert len(set(logits.argmax(axis=1).tolist())) > 5, format  # and says not one thing only


def test_a_text_goes_in_and_one_comes_out(tmp_path: Path) -> None:
    path = write_model("tiny", "Q4_0", tmp_path)
    llm = LLM(str(path), context=64)
    (output,) = llm.generate("hi there", SamplingParams(max_tokens=8, ignore_eos=True))
    tokenizer = Tokenizer.from_spec(read_header(path).tokenizer_spec())
    first = SHAPES["tiny"].vocabulary - 256
    assert output.prompt_token_ids[0] == first
    assert len(output.prompt_token_ids) < len("hi there")
    assert tokenizer.decode(output.prompt_token_ids) == "hi there"
    assert len(output.outputs[0].token_ids) == 8


def test_every_word_of_a_full_vocabulary_can_be_built() -> None:
    facts = metadata("tiny", SHAPES["llama-3.2-1b"], "Q4_0")
    pieces, merges = facts["tokenizer.ggml.tokens"], facts["tokenizer.ggml.merges"]
    assert isinstance(pieces, list)
    assert isinstance(merges, list)
    assert len(pieces) == len(set(pieces)) == 128_256
    known = set(pieces[:256])
    for merge in merges:
        left, right = merge.split(" ")
        assert {left, right} <= known
        known.add(left + right)
    assert known == set(pieces[:-256])


def test_a_seed_is_a_file(tmp_path: Path) -> None:
    first = write_model("tiny", "Q4_K_M", tmp_path / "a")
    again = write_model("tiny", "Q4_K_M", tmp_path / "b")
    other = write_model("tiny", "Q4_K_M", tmp_path / "a", seed=1)
    assert first != other
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()


def test_a_file_that_is_there_is_left_and_a_part_of_one_is_not(tmp_path: Path) -> None:
    path = write_model("tiny", "Q8_0", tmp_path)
    whole, stamp = path.read_bytes(), path.stat().st_mtime_ns
    write_model("tiny", "Q8_0", tmp_path)
    assert path.stat().st_mtime_ns == stamp
    path.write_bytes(whole[:-1])
    write_model("tiny", "Q8_0", tmp_path)
    assert path.read_bytes() == whole


def test_what_ends_half_way_leaves_nothing(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"\0" * 64
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "x.gguf", {}, [Tensor("x", (32,), GGMLType.F32, chunks)])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert main(["llama-3.1-8b", "q4_0", str(tmp_path)]) == 1
    assert "takes 4.66 GB, and 1 GB is kept free" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("shape", "values"), [("llama-3.2-1b", 1_235_814_400), ("llama-3.1-8b", 8_030_261_248)]
)
def test_the_shapes_are_those_of_the_models(shape: str, values: int) -> None:
    """As many parameters as the models' cards count; GGUF files add half a head of rotations."""
    found = sum(math.prod(each.shape) for each in tensors(SHAPES[shape], "Q4_0", seed=0))
    assert found == values + SHAPES[shape].head_dim // 2


def test_rotations_are_as_llama_3_divides_them(tmp_path: Path) -> None:
    reader = gguf.GGUFReader(write_model("tiny", "Q4_0", tmp_path))
    (factors,) = [each.data for each in reader.tensors if each.name == "rope_freqs.weight"]
    length = 2 * np.pi * 500_000 ** (2 * np.arange(32) / 64)  # of a whole turn, in tokens
    assert (factors[length < 8192 / 4] == 1).all()
    assert (factors[length > 8192] == 8).all()
    assert (np.diff(factors) >= 0).all()
