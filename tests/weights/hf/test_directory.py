"""Whole directories: the same bits as weights packed by hand, and what is said of broken ones."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo import LLM, SamplingParams
from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.kernels import native
from octavo.model.config import ModelConfig
from octavo.sampling_params import Sampling
from octavo.weights.fingerprint import fingerprint
from octavo.weights.model_header import read_header
from octavo.weights.model_weights import ModelWeights, load_weights, reference_weights
from tests.cli.tiny_model import TEMPLATE
from tests.families.checkpoints import CONFIGS, model, weights
from tests.families.drawn import TOKENS
from tests.tiny import TINY, TinyModel, all_logits, make_runner
from tests.weights.hf.written import (
    Dtype,
    changed,
    write_json,
    write_model,
    write_weights,
)

POOL = native.ThreadPool(2)
LLAMA = replace(TINY, vocab_size=131, rope_style="half", qkv_bias=False)
QWEN2 = replace(LLAMA, architecture="qwen2", qkv_bias=True, tied_head=True)


def logits(tiny: TinyModel) -> np.ndarray:
    return all_logits(make_runner(tiny, POOL, kv_dtype="f32", num_blocks=8), TOKENS)


def loaded(path: Path) -> TinyModel:
    header = read_header(path)
    program = header.program()
    exact = reference_weights(header, program.weights())
    return TinyModel(program, load_weights(header, program.weights(), POOL, asked="f32"), exact)


@pytest.mark.parametrize("form", ["old", "new"])
@pytest.mark.parametrize(
    "config", [LLAMA, QWEN2, *CONFIGS.values()], ids=["llama", "qwen2", *CONFIGS]
)
def test_a_directory_has_the_bits_of_its_weights_packed_by_hand(
    tmp_path: Path, config: ModelConfig, form: Any
) -> None:
    write_model(tmp_path, config, weights(config), form=form, shards=3 if form == "new" else 1)
    found, by_hand = loaded(tmp_path), model(config, POOL)
    assert found.program == by_hand.program
    assert all(np.array_equal(found.exact[name], each) for name, each in by_hand.exact.items())
    assert np.array_equal(logits(found), logits(by_hand))


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_shorter_floats_run_as_they_are_stored(tmp_path: Path, dtype: Dtype) -> None:
    drawn = weights(LLAMA)
    write_model(tmp_path, LLAMA, drawn, dtype=dtype)
    header = read_header(tmp_path)
    assert list(header.tensor_types()) == [dtype]
    packed: ModelWeights = load_weights(header, header.program().weights(), POOL)
    assert {matrix.format for matrix in packed.matrices.values()} == {"BF16"}
    exact = reference_weights(header, header.program().weights())
    half = drawn["token_embd.weight"].astype(np.float16).astype(np.float32)
    want = half if dtype == "F16" else drawn["token_embd.weight"]
    assert np.array_equal(exact["token_embd.weight"], want)


def test_a_directory_answers_like_its_gguf_file(gguf: Path, tiny: Path) -> None:
    greedy = SamplingParams(temperature=0, max_tokens=20)
    of_file, of_directory = LLM(gguf, threads=1), LLM(tiny, threads=1)
    chat = [{"role": "user", "content": "hello"}]
    for ask in (
        lambda llm: llm.generate(["hello", "a b"], greedy),
        lambda llm: [llm.chat(chat, greedy)],
    ):
        answers = [
            [o.outputs[0].token_ids for o in _flat(ask(llm))] for llm in (of_file, of_directory)
        ]
        assert answers[0] == answers[1]
    assert of_directory.tokenizer.eos_ids == of_file.tokenizer.eos_ids
    assert of_directory.tokenizer.spec.chat_template == TEMPLATE


def _flat(found: Any) -> list[Any]:
    return [each for one in found for each in (one if isinstance(one, list) else [one])]


def test_rows_that_are_no_tokens_are_never_chosen(
    tiny: Path, gguf: Path, caplog: pytest.LogCaptureFixture
) -> None:
    header = read_header(gguf)
    drawn = reference_weights(header, header.program().weights())
    table = drawn["token_embd.weight"]
    likely = np.full((6, table.shape[1]), 9, np.float32)
    padded = {**drawn, "token_embd.weight": np.concatenate([table, likely])}
    write_model(tiny, replace(header.config, vocab_size=264), padded)
    before, llm = LLM(gguf, threads=1), LLM(tiny, threads=1)
    said = f"{tiny}: the embedding's rows from 258 to 263 are no tokens: no answer has them"
    assert caplog.messages == [said]
    got, want = llm.logits([1, 2, 3]), before.logits([1, 2, 3])
    assert got.shape == (3, 264)
    assert np.abs(got[:, :258] - want).max() < 1e-2 * np.abs(want).max()
    assert (np.ptp(got[:, 258:], axis=1) == 0).all()
    changed(tiny, "config.json", vocab_size=258)
    with pytest.raises(ModelFormatError) as refused:
        read_header(tiny)
    assert str(refused.value).endswith("shape (264, 64), but config.json: vocab_size is 258")


def test_all_ends_of_an_answer_and_the_recommended_sampling_are_read(tiny: Path) -> None:
    recommended: dict[str, Any] = {
        "temperature": 0.6,
        "top_p": 0.9,
        "top_k": 40,
        "repetition_penalty": 1.1,
    }
    write_json(tiny / "generation_config.json",
               {"eos_token_id": [65, 257], "do_sample": True, **recommended})  # fmt: skip
    llm = LLM(tiny, threads=1)
    assert llm.tokenizer.eos_ids == {65, 257}
    assert llm.info.sampling == Sampling(**recommended)
    changed(tiny, "generation_config.json", eos_token_id=66, do_sample=False)
    assert read_header(tiny).sampling() == Sampling(temperature=0, repetition_penalty=1.1)
    llm = LLM(tiny, threads=1)
    answer = llm.generate("hello", SamplingParams(max_tokens=3))[0]
    assert (answer.sampling.temperature, answer.sampling.top_k) == (0, 0)
    assert read_header(tiny).tokenizer_spec().end_ids == (66,)
    (tiny / "generation_config.json").unlink()
    changed(tiny, "config.json", eos_token_id=[67, 999])
    assert read_header(tiny).tokenizer_spec().end_ids == (67,)
    assert read_header(tiny).sampling() is None


def test_tokenizer_json_says_whether_a_bos_is_put_in_front(
    tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As to transformers 5, which leaves add_bos_token out."""
    changed(tiny, "tokenizer_config.json", add_bos_token=False)
    assert not read_header(tiny).tokenizer_spec().add_bos
    assert "add_bos_token" not in caplog.text
    changed(tiny, "tokenizer_config.json", add_bos_token=True)
    assert not read_header(tiny).tokenizer_spec().add_bos
    said = "tokenizer_config.json: add_bos_token is true, but the post_processor of tokenizer.json "
    assert f"{said}puts none, and so it is" in caplog.text


def test_a_chat_template_is_where_transformers_would_find_it(
    tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def template() -> str | None:
        return read_header(tiny).tokenizer_spec().chat_template

    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "third"}]
    changed(tiny, "tokenizer_config.json", chat_template=named)
    write_json(tiny / "chat_template.json", {"chat_template": "second"})
    assert template() == TEMPLATE
    (tiny / "chat_template.jinja").unlink()
    assert template() == "second"
    (tiny / "chat_template.json").unlink()
    assert template() == "third"
    assert read_header(tiny).tokenizer_spec().named_templates == {"tool_use": "tools"}
    changed(tiny, "tokenizer_config.json", chat_template=named[:1])
    assert template() is None
    assert read_header(tiny).tokenizer_spec().template_for(tools=True) == "tools"
    said = 'tokenizer_config.json: chat_template has no default one: there are "tool_use"'
    assert said in caplog.text
    blank = {"name": "tool_use", "template": " "}
    changed(tiny, "tokenizer_config.json", chat_template=[blank, named[1]])
    assert read_header(tiny).tokenizer_spec().template_for(tools=True) == "third"
    assert 'tokenizer_config.json: the chat template "tool_use" is blank' in caplog.text
    changed(tiny, "tokenizer_config.json", chat_template=" \n")
    assert template() is None
    for broken in (5, blank, ["x"], [{"name": "default"}], [{"template": "x"}]):
        changed(tiny, "tokenizer_config.json", chat_template=broken)
        with pytest.raises(ModelFormatError, match="expected a text or a list of named ones"):
            template()


def test_the_fingerprint_is_of_all_files_that_the_model_is_read_from(tiny: Path) -> None:
    seen = {fingerprint(tiny, home=None)}
    (tiny / "README.md").write_text("not of the model")
    assert {fingerprint(tiny, home=None)} == seen
    for file in ("config.json", "tokenizer.json", "generation_config.json", "chat_template.jinja",
                 "model.safetensors"):  # fmt: skip
        data = (tiny / file).read_bytes()
        (tiny / file).write_bytes(data + b" ")
        seen.add(fingerprint(tiny, home=None))
        (tiny / file).write_bytes(data)
    assert len(seen) == 6


def test_code_of_a_directory_is_ignored_and_that_is_said(
    tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tiny / "modeling.py").write_text("raise SystemExit")
    changed(tiny, "config.json", auto_map={"AutoModelForCausalLM": "modeling.Model"})
    read_header(tiny).program()
    assert caplog.messages == [
        f"{tiny}: config.json: auto_map is ignored: no code of a model is run"
    ]


def test_tables_that_nobody_reads_and_a_head_saved_twice_are_left_out(tmp_path: Path) -> None:
    tied = replace(LLAMA, tied_head=True)
    drawn = weights(tied)
    twice = {**drawn, "output.weight": drawn["token_embd.weight"]}
    write_model(tmp_path, tied, twice)
    assert "output.weight" not in read_header(tmp_path).tensors
    write_model(tmp_path, tied, {**twice, "output.weight": -drawn["token_embd.weight"]})
    with pytest.raises(ModelFormatError, match=r"'lm_head.weight' of model.safetensors at offset "
                       r"\d+ differs from 'model.embed_tokens.weight', but"):  # fmt: skip
        read_header(tmp_path)
    names = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32),
             "blk.0.attn_norm.weight": np.ones(4, np.float32)}  # fmt: skip
    write_weights(tmp_path, names)
    assert [i.name for i in read_header(tmp_path).tensors.values()] == ["blk.0.attn_norm.weight"]
    said = (
        r"tensor 'blk.0.attn_norm.weight' of model.safetensors at offset \d+ has no place in the 2 "
    )
    with pytest.raises(UnsupportedModelError, match=said):
        read_header(tmp_path).program()


def test_a_directory_that_changes_while_it_loads_is_noticed(tiny: Path) -> None:
    header = read_header(tiny)
    names = header.program().weights()
    write_model(tiny, header.config, {
        name: np.zeros(spec.shape, np.float32) for name, spec in reversed(names.items())
    })  # fmt: skip
    with pytest.raises(ModelFormatError, match="changed since its header was read: load it again"):
        load_weights(header, names, POOL)


def test_a_file_that_changes_between_header_and_weights_is_named(tiny: Path) -> None:
    """Other weights of the same shapes, or another config: half of each would be run."""
    for name in ("model.safetensors", "config.json", "tokenizer.json", "generation_config.json"):
        header = read_header(tiny)
        new = tiny / "new"
        new.write_bytes((tiny / name).read_bytes() if (tiny / name).exists() else b"{}")
        new.replace(tiny / name)
        said = f"^{re.escape(str(tiny / name))} changed while the model was loaded: load it again$"
        with pytest.raises(ModelFormatError, match=said):
            load_weights(header, header.program().weights(), POOL)
        load_weights(read_header(tiny), header.program().weights(), POOL)


def test_a_file_that_changes_before_the_fingerprint_is_taken_is_noticed(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_what_came_after(path: Path, *, home: Path | None) -> str:
        (path / "config.json").write_bytes((path / "config.json").read_bytes() + b" ")
        return fingerprint(path, home=home)

    monkeypatch.setattr("octavo.loaded_model.fingerprint", of_what_came_after)
    with pytest.raises(ModelFormatError, match=r"config\.json changed while the model was loaded"):
        LLM(tiny, threads=1)
