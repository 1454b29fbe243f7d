"""Gemma 4 in every form that files have, and what it has that no other family does: layers that
store nothing, and rows gathered from the file. What transformers says is in `test_directories`."""

from __future__ import annotations

import math
import os
import threading
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from octavo import LLM, SamplingParams
from octavo.cli.inspect import as_text, describe
from octavo.config import EngineConfig
from octavo.errors import ModelError
from octavo.kernels import KV_FORMATS
from octavo.program.kv_bytes import PageFormats, kv_bytes_per_token
from octavo.program.ops import Attend, StoreKV
from octavo.weights.ggml_type import GGMLType
from octavo.weights.model_header import read_header
from octavo.weights.model_weights import load_weights, open_tables
from octavo.weights.pack_cache import kept_packs
from octavo.weights.packed_formats import packed_bytes
from tests.families.directories import config_of
from tests.families.drawn import PROMPTS, TOKENS
from tests.families.forms import POOL, drawn, loaded, logits
from tests.families.gemma4_files import TABLE, directory, gguf_file, sizes_of
from tests.tiny import all_logits, make_runner
from tests.weights.hf.written import write_weights

VARIANTS = ["gemma4", "gemma4-by-layer", "gemma4-heads-512"]
BF16 = PageFormats.everywhere(KV_FORMATS["bf16"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_gguf_file_has_the_bits_of_its_directory(variant: str, tmp_path: Path) -> None:
    want = logits(loaded(directory(tmp_path / "folder", variant)))
    assert np.array_equal(logits(loaded(gguf_file(tmp_path / "m.gguf", variant))), want)


def test_a_quantised_table_is_read_in_its_blocks(tmp_path: Path) -> None:
    path = gguf_file(tmp_path / "m.gguf", "gemma4", quantised=(TABLE,))
    model = loaded(path)
    assert model.weights.tables[TABLE].type is GGMLType.Q8_0
    rounded = drawn("gemma4")
    name = "model.embed_tokens_per_layer.weight"
    q8_0 = gguf.GGMLQuantizationType.Q8_0
    rounded[name] = gguf.quants.dequantize(gguf.quants.quantize(rounded[name], q8_0), q8_0)
    folder = directory(tmp_path / "folder")
    write_weights(folder, rounded, dtype="F32")
    assert np.array_equal(logits(model), logits(loaded(folder)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_last_layers_read_what_the_last_before_them_of_their_kind_stored(
    variant: str, tmp_path: Path
) -> None:
    config = config_of(variant)
    header = read_header(directory(tmp_path, variant))
    program = header.program()
    layers = config["num_hidden_layers"]
    first = layers - config["num_kv_shared_layers"]
    stored = [(op.group, op.layer) for op in program.ops if isinstance(op, StoreKV)]
    read = [(op.group, op.layer) for op in program.ops if isinstance(op, Attend)]
    assert len(stored) == first
    assert len(read) == layers
    kinds = config["layer_types"]
    for i in range(first, layers):
        last = max(j for j in range(first) if kinds[j] == kinds[i])
        assert read[i] == stored[last]
    dim, kv_heads = sizes_of(config)
    full = kinds[:first].count("full_attention") * dim * kv_heads
    windowed = kinds[:first].count("sliding_attention")
    windowed *= config["head_dim"] * config["num_key_value_heads"]
    assert kv_bytes_per_token(program, BF16) == 2 * 2 * (full + windowed)


@pytest.mark.parametrize("kv", ["f32", "bf16", "int8"])
def test_bits_are_the_same_alone_in_company_in_chunks_and_from_the_cache(
    kv: str, tmp_path: Path
) -> None:
    path = directory(tmp_path)
    options: Any = {"kv_dtype": kv, "threads": 2, "context": 256, "kv_memory": "16M"}
    greedy = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
    prompts = [*PROMPTS, TOKENS[:70], TOKENS[:45] + TOKENS[3:30]]
    alone = [LLM(path, prefix_cache=False, **options).generate([p], greedy)[0] for p in prompts]
    want = [each.outputs[0].token_ids for each in alone]
    llm = LLM(path, max_batch_tokens=32, **options)
    for _ in range(2):  # cold, then found
        answers = llm.generate(prompts, greedy)
        assert [each.outputs[0].token_ids for each in answers] == want
    assert answers[0].usage.cached_tokens > 0
    forked = SamplingParams(temperature=0.9, seed=7, n=3, max_tokens=16, ignore_eos=True)
    cold = LLM(path, prefix_cache=False, **options).generate([prompts[0]], forked)[0]
    found = llm.generate([prompts[0]], forked)[0]
    assert [o.token_ids for o in found.outputs] == [o.token_ids for o in cold.outputs]
    rows = llm.logits(TOKENS)
    assert np.array_equal(LLM(path, max_batch_tokens=7, **options).logits(TOKENS), rows)


def test_packed_weights_that_were_kept_find_their_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("OCTAVO_HOME", str(home))
    monkeypatch.setattr("octavo.weights.huge_pages.share_of_huge", lambda data: 1.0)
    path = directory(tmp_path / "model")
    for each in path.iterdir():  # a file that has just been written is not remembered
        os.utime(each, (1e9, 1e9))
    options: Any = {"pack_cache": True, "context": 256, "kv_memory": "16M"}
    first = LLM(path, **options)
    want = first.logits(TOKENS)
    for thread in threading.enumerate():
        if thread.name == "octavo-keeper":
            thread.join(30)
    assert len(kept_packs(home)) == 1
    again = LLM(path, **options)
    assert again.info.weights_mapped
    assert np.array_equal(again.logits(TOKENS), want)


def test_the_table_is_mapped_and_in_no_memory(tmp_path: Path) -> None:
    header = read_header(directory(tmp_path))
    specs = header.program().weights()
    weights = load_weights(header, specs, POOL)
    assert TABLE not in weights.matrices
    assert packed_bytes(header, specs, None)[TABLE] == 0
    table = weights.tables[TABLE]
    assert table.type is GGMLType.BF16
    assert table.data.nbytes == 131 * 7 * 32 * 2
    with open("/proc/self/maps") as maps:
        found = [line for line in maps if str(tmp_path) in line]
    assert found
    others = open_tables(header, specs)[TABLE]
    assert others.data.tobytes() == table.data.tobytes()
    os.replace(tmp_path / "model.safetensors", tmp_path / "moved.safetensors")
    assert np.array_equal(table.gather(np.array([3, 5], np.int32)).shape, (2, 224))


def test_inspect_says_the_tables_bytes_apart(tmp_path: Path) -> None:
    header = read_header(directory(tmp_path))
    found = describe("model", header, EngineConfig.parse({}))
    table = 131 * 7 * 32 * 2
    assert found["supported"], found["reason"]
    assert found["in_file_bytes"] == table
    assert found["kv_bytes_per_token"] == 2 * 2 * 2 * (3 * 32 + 1 * 64)
    assert found["windowed_head_dim"] == 32
    text = as_text(found)
    assert "embeddings of layers" in text
    assert "of 64; in windowed layers 2 of 32" in text
    assert "the last 3 layers read earlier ones'" in text


def test_tensors_of_images_and_sound_are_left_out_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = directory(tmp_path, "gemma4-with-images")
    header = read_header(folder)
    assert caplog.messages == [
        f"{folder}: only the text model is run: the tensors of model.vision_tower and "
        "model.audio_tower and model.embed_vision and model.embed_audio are left out",
        f"{folder}: the embedding's rows from 131 to 135 are no tokens: no answer has them",
    ]
    assert not any("vision" in info.name for info in header.tensors.values())


def test_k_and_v_of_layers_that_store_none_are_passed_over(tmp_path: Path) -> None:
    """Files that transformers saved before 5.8 have such."""
    folder = directory(tmp_path / "folder")
    want = logits(loaded(folder))
    tensors = drawn("gemma4")
    for part in ("k_proj", "v_proj"):
        tensors[f"model.layers.5.self_attn.{part}.weight"] = np.ones((64, 96), np.float32)
    tensors["model.layers.5.self_attn.k_norm.weight"] = np.ones(32, np.float32)
    write_weights(folder, tensors, dtype="BF16")
    assert np.array_equal(logits(loaded(folder)), want)
    tensors["model.layers.5.self_attn.x_proj.weight"] = np.ones((64, 96), np.float32)
    write_weights(folder, tensors, dtype="BF16")
    with pytest.raises(ModelError, match=r"x_proj.* has no place"):
        loaded(folder)


def test_full_layers_turn_a_quarter_of_their_pairs_by_the_whole_heads_frequencies(
    tmp_path: Path,
) -> None:
    for path in (directory(tmp_path / "d"), gguf_file(tmp_path / "m.gguf", "gemma4")):
        program = read_header(path).program()
        full, windowed = (program.rope_tables[name].frequencies for name in ("full", "windowed"))
        assert full == tuple(1e6 ** (-2 * i / 64) if i < 8 else 0.0 for i in range(32))
        assert len(windowed) == 16
        assert math.isclose(windowed[1], 1e4 ** (-2 / 32))


def test_chunks_of_wide_heads_with_every_page_type(tmp_path: Path) -> None:
    model = loaded(directory(tmp_path, "gemma4-heads-512"))
    for kv in ("f32", "bf16", "int8", "int4"):
        want = all_logits(make_runner(model, POOL, kv_dtype=kv), TOKENS)
        got = all_logits(make_runner(model, POOL, kv_dtype=kv), TOKENS, cuts=(7, 50))
        assert np.array_equal(got, want), kv
