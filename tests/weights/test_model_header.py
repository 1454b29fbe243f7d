"""What is known of a model before its weights are read, and that a refusal names the file."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from octavo import LLM, SamplingParams
from octavo.errors import ModelError, ModelFormatError, UnsupportedModelError
from octavo.model.registry import ARCHITECTURES
from octavo.program.ops import WeightSpec
from octavo.sampling_params import Sampling
from octavo.tokenizer.byte_level import char_to_byte
from octavo.weights.gguf_model_file import GGUFModelFile
from octavo.weights.model_header import ModelHeader, read_header
from tests.cli.tiny_model import write_tiny_model
from tests.weights.gguf_bytes import ARRAY, F32, I32, STRING, U32, entry, string, strings, u32, u64


def test_the_sampling_that_a_file_recommends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tiny.gguf"
    assert read_header(write_tiny_model(path)).sampling() is None

    def recommending(temperature: float) -> Sampling | None:
        entries = [
            entry("general.sampling.temp", F32, struct.pack("<f", temperature)),
            entry("general.sampling.top_k", U32, u32(40)),
        ]
        return read_header(write_tiny_model(path, more=entries)).sampling()

    assert recommending(0.7) == Sampling(temperature=0.7, top_k=40)
    assert recommending(-1.0) is None
    (said,) = caplog.messages
    assert said.startswith(f"{path}: the sampling that it recommends is not used: temperature=-1.0")


def refusal(*kinds: type[ModelError], ask: Callable[[], object]) -> str:
    with pytest.raises(kinds) as refused:
        ask()
    return str(refused.value)


def test_an_unknown_architecture_is_refused_by_name(header: ModelHeader) -> None:
    path = header.path
    path.write_bytes(path.read_bytes().replace(b"llama", b"gamma"))
    said = f"{path}: architecture 'gamma' is not supported: {', '.join(sorted(ARCHITECTURES))} are"
    assert refusal(UnsupportedModelError, ask=read_header(path).program) == said


def test_a_file_with_more_layers_than_it_says_is_refused(header: ModelHeader) -> None:
    """It used to run with the layers that were said, and answer nonsense."""
    fewer = replace(header, config=replace(header.config, num_layers=1))
    message = r"'blk\.1\.attn_norm\.weight' at offset \d+ has no place in the 1 layer of a llama"
    with pytest.raises(UnsupportedModelError, match=message):
        fewer.program()


def test_a_vocabulary_of_another_size_than_the_embedding_is_refused(header: ModelHeader) -> None:
    assert len(header.tokenizer_spec().tokens) == 258
    more_rows = replace(header, config=replace(header.config, vocab_size=300))
    message = r"has 258 tokens, 'token_embd\.weight' has rows for 300"
    with pytest.raises(ModelFormatError, match=message):
        more_rows.tokenizer_spec()


def test_a_file_may_have_fewer_tokens_than_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The last two rows are no tokens: logits show them, and scores are over the others."""
    tokens, types = [*char_to_byte()], struct.pack("<256i", *[1] * 256)
    fewer = [
        strings("tokenizer.ggml.tokens", tokens),
        entry("tokenizer.ggml.token_type", ARRAY, u32(I32) + u64(256) + types),
        entry("tokenizer.ggml.bos_token_id", U32, u32(0)),
        entry("tokenizer.ggml.eos_token_id", U32, u32(1)),
    ]
    path = write_tiny_model(tmp_path / "tiny.gguf", template=None, more=fewer)
    llm, prompt = LLM(path, threads=1), [5, 6, 7, 8]
    said = f"{path}: the embedding's rows from 256 to 257 are no tokens: no answer has them"
    assert caplog.messages == [said]
    logits = llm.logits(prompt)
    whole = LLM(write_tiny_model(tmp_path / "whole.gguf"), threads=1)
    assert np.array_equal(logits, whole.logits(prompt))
    assert logits.shape == (4, 258)
    rows = logits[:3].astype(np.float64)
    want = rows[range(3), prompt[1:]] - np.log(np.exp(rows[:, :256]).sum(1))
    assert np.abs(llm.score(prompt) - want).max() < 1e-5
    assert np.abs(whole.score(prompt) - want).min() > 1e-3


def test_types_and_bytes_of_the_tensors(header: ModelHeader) -> None:
    assert header.tensor_types() == {"F32": (20, 4 * 78_272)}
    norm, missing = WeightSpec("output_norm.weight", (64,)), WeightSpec("blk.2.attn_q.weight", (9,))
    assert header.weight_bytes({norm.name: norm}) == {norm.name: 256}
    said = refusal(ModelFormatError, ask=lambda: header.weight_bytes({missing.name: missing}))
    assert said == f"{header.path}: tensor 'blk.2.attn_q.weight' is missing"


def test_a_config_that_is_refused_names_the_file_once(tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"

    def said(more: bytes, *, without: bytes = b"") -> str:
        write_tiny_model(path, more=[more])
        path.write_bytes(path.read_bytes().replace(without, b"x" * len(without)))
        kinds = (ModelFormatError, UnsupportedModelError)
        return refusal(*kinds, ask=lambda: read_header(path).program())

    none = entry("llama.block_count", U32, u32(0))
    missing = f"{path}: metadata 'llama.block_count': expected a whole number, found nothing"
    assert said(none, without=b"llama.block_count") == missing
    assert said(none) == f"{path}: num_layers is 0: expected at least 1"
    other = entry("llama.rope.scaling.type", STRING, string("dynamic"))
    assert said(other).startswith(f"{path}: llama.rope.scaling.type is 'dynamic'")


def test_a_tokenizer_that_is_refused_names_the_file_once(header: ModelHeader) -> None:
    assert isinstance(header.files, GGUFModelFile)
    metadata = {**header.files.metadata, "tokenizer.ggml.model": "bert"}
    other = replace(header, files=replace(header.files, metadata=metadata))
    said = refusal(UnsupportedModelError, ask=other.tokenizer_spec)
    assert said.startswith(f"{header.path}: tokenizer.ggml.model is 'bert'; Octavo reads")


def test_what_is_wrong_and_needed_by_nobody_is_said_once_and_the_file_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    more = [
        entry("general.name", STRING, string(b"Caf\xe9")),
        entry("general.tags", ARRAY, u32(STRING) + u64(2) + string("a") + string(b"\xff\xfe")),
        entry("tokenizer.ggml.padding_token_id", U32, u32(300)),
    ]
    path = write_tiny_model(tmp_path / "odd.gguf", more=more)
    llm = LLM(path, threads=1)
    assert len(llm.generate([[1, 2]], SamplingParams(max_tokens=2))[0].outputs[0].token_ids) == 2
    assert read_header(path).files.name == "Caf\ufffd"
    said = [f"{path}: {text}" for text in (
        "metadata 'general.name' is not valid UTF-8: \ufffd stands for what is wrong in it",
        "metadata 'general.tags' is not valid UTF-8: \ufffd stands for what is wrong in it",
        "metadata 'tokenizer.ggml.padding_token_id' is 300, no id in a vocabulary of 258 tokens: "
        "it is left out",
    )]  # fmt: skip
    assert caplog.messages == [*said, *said[:2]]  # the second reading's too
