"""`octavo inspect`: a file's facts, with nothing but its header read."""

from __future__ import annotations

import struct
from pathlib import Path

from octavo.model.registry import ARCHITECTURES
from tests.cli.result import Octavo, refused
from tests.cli.tiny_model import TEMPLATE, TINY, write_tiny_model
from tests.families.directories import golden_of, write_directory
from tests.weights.gguf_bytes import F32, U32, entry, gguf, small_model, tensor, u32
from tests.weights.gguf_in_parts import write_parts


def test_the_facts_of_a_model(octavo: Octavo) -> None:
    assert octavo("inspect", TINY).out == (
        f"file          {TINY}, 311 KiB\n"
        "name          Tiny\n"
        "architecture  llama\n"
        "parameters    78.3 k\n"
        "layers        2, hidden 64, FFN 96\n"
        "heads         4, KV heads 2, of 16\n"
        "vocabulary    258, head tied\n"
        "context       128 tokens\n"
        "tokenizer     bpe, smollm\n"
        "template      yes\n"
        "tool calls    hermes-wrapper\n"
        "weights       as stored 309 KiB, w8 87.3 KiB, w4 55.3 KiB, bf16 155 KiB, f32 309 KiB\n"
        "KV a token    256 B\n"
        "tensors\n"
        "  type  tensors    bytes\n"
        "  F32        20  306 KiB\n"
    )
    found = octavo("inspect", TINY, "--json").json
    assert found["tensor_types"] == {"F32": {"tensors": 20, "bytes": 4 * found["parameters"]}}
    assert found["bytes"] == Path(TINY).stat().st_size
    assert (found["kv_bytes_per_token"], found["chat_template"]) == (256, TEMPLATE)
    assert (
        found["weight_bytes"]["w4"]
        == octavo("plan", TINY, "--weights", "w4", "--json").json["weight_bytes"]
    )
    assert found["supported"] is True


def test_the_template_is_printed_when_asked_for(octavo: Octavo, tmp_path: Path) -> None:
    bare = str(write_tiny_model(tmp_path / "bare.gguf", template=None))
    assert octavo("inspect", TINY, "--template").out.endswith(f"\n\n{TEMPLATE}\n")
    assert octavo("inspect", bare, "--template").out.endswith("\n\nno chat template\n")
    shown = octavo("inspect", bare).out
    assert "template      no\n" in shown
    assert "tool calls" not in shown
    assert octavo("inspect", bare, "--json").json["tool_format"] is None


def test_heads_are_shown_as_they_are_and_as_they_are_stored(octavo: Octavo, tmp_path: Path) -> None:
    golden = golden_of("llama-head-20")
    path = str(write_directory(tmp_path, "llama-head-20", golden["shapes"], golden["seed"]))
    found = octavo("inspect", path, "--json").json
    assert (found["head_dim"], found["stored_head_dim"]) == (20, 32)
    assert found["kv_bytes_per_token"] == 3 * 2 * 2 * 32 * 2  # layers, K and V, KV heads, dims
    text = octavo("inspect", path).out
    assert "heads         4, KV heads 2, of 20, filled up to 32\n" in text


def test_an_architecture_that_does_not_run_is_still_shown(octavo: Octavo, tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "other.gguf")
    path.write_bytes(path.read_bytes().replace(b"llama", b"gamma"))
    result = octavo("inspect", str(path))
    assert result.code == 0
    why = f"architecture 'gamma' is not supported: {', '.join(sorted(ARCHITECTURES))} are"
    assert f"runs          not supported: {why}\n" in result.out
    assert "KV a token" not in result.out
    for verb in (["run", str(path), "hi"], ["plan", str(path)], ["explain", str(path)]):
        assert octavo(*verb) == refused(f"{path}: {why}", code=1)


def test_windows_and_what_a_file_leaves_to_its_family_are_shown(
    octavo: Octavo, tmp_path: Path
) -> None:
    window = entry("gemma3.attention.sliding_window", U32, u32(16))
    path = str(write_tiny_model(tmp_path / "g.gguf", architecture="gemma3", more=[window]))
    out = octavo("inspect", path).out
    assert "window        16 tokens\n" in out
    assumed = "rope.freq_base_swa 10000, attention.sliding_window_pattern 6, attention.scale "
    assert f"assumed       {assumed}0.25\n" in out
    assert "KV a token    256 B, 0 B beyond the window\n" in out  # both layers are windowed


def test_all_verbs_but_inspect_refuse_a_key_not_computed(octavo: Octavo, tmp_path: Path) -> None:
    scale = entry("llama.logit_scale", F32, struct.pack("<f", 0.25))
    path = str(write_tiny_model(tmp_path / "scaled.gguf", more=[scale]))
    found = octavo("inspect", path, "--json").json
    assert (found["supported"], found["layers"], found["kv_bytes_per_token"]) == (False, 2, None)
    assert found["reason"].startswith("metadata 'llama.logit_scale' is 0.25: only 0 or 1")
    for verb in (("run", path, "hi"), ("plan", path), ("explain", path), ("verify", path)):
        result = octavo(*verb)
        assert (result.code, result.err) == (1, f"octavo: {path}: {found['reason']}\n")


def test_a_tokenizer_that_is_not_read_is_still_named(octavo: Octavo, tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "bert.gguf")
    path.write_bytes(path.read_bytes().replace(b"gpt2", b"bert"))
    out = octavo("inspect", str(path)).out
    assert "tokenizer     bert\n" in out
    why = "tokenizer.ggml.model is 'bert'; Octavo reads 'gpt2', 'llama', 'gemma4'"
    assert f"runs          not supported: {why}\n" in out
    assert "KV a token    256 B\n" in out


def test_a_file_that_is_no_model_is_refused_in_one_line(octavo: Octavo, tmp_path: Path) -> None:
    for name, content in [("text", b"hello"), ("half", small_model()[:100]), ("empty", b"")]:
        path = tmp_path / name
        path.write_bytes(content)
        result = octavo("inspect", str(path))
        assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
        assert result.err.startswith(f"octavo: {path}: ")


def test_a_model_in_parts_is_one_model(octavo: Octavo, tmp_path: Path) -> None:
    paths = write_parts(write_tiny_model(tmp_path / "t.gguf"), 2)
    shown = octavo("inspect", str(paths[1])).out
    assert f"file          {paths[1]}, 311 KiB\n" in shown
    assert "parts         2: t-00001-of-00002.gguf, t-00002-of-00002.gguf\n" in shown
    assert "  F32        20  306 KiB\n" in shown
    found = octavo("inspect", str(paths[1]), "--json").json
    assert found["parts"] == [str(each) for each in paths]
    assert found["bytes"] == sum(each.stat().st_size for each in paths)
    assert octavo("inspect", TINY, "--json").json["parts"] == [TINY]


def test_a_tensor_type_that_does_not_run_is_named_with_what_to_fetch(
    octavo: Octavo, tmp_path: Path
) -> None:
    path = tmp_path / "small.gguf"
    path.write_bytes(gguf([], [tensor("w", (256,), 18, 0)], bytes(98)))
    why = (
        "tensor 'w' has type IQ3_XXS, which Octavo does not run: download the model's Q4_K_M or "
        "IQ4_XS file instead, or Q2_K if memory is short"
    )
    assert octavo("inspect", str(path)).out == f"file  {path}\nruns  not supported: {why}\n"
    found = octavo("inspect", str(path), "--json").json
    assert (found["supported"], found["reason"]) == (False, why)
    assert octavo("run", str(path), "hi") == refused(f"{path}: {why}", code=1)
