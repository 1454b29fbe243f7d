"""GPT-2, StarCoder, StarCoder2, Falcon, BLOOM and MPT as GGUF files: the same bits as their
directories.

Keys, names and order of rows are those that llama.cpp's converter writes: what is transposed lies
as other weights do, and q, k, v are in turn. StarCoder's converter knows one KV head only; with
more, rows are as llama.cpp reads them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.batch import FloatArray
from octavo.errors import ModelFormatError, UnsupportedModelError
from octavo.weights.model_header import read_header
from tests.families.directories import config_of, golden_of, write_directory
from tests.families.drawn import TOKENS
from tests.families.forms import POOL, drawn, loaded, logits
from tests.families.gguf_files import write_gguf
from tests.tiny import all_logits, make_runner
from tests.weights.hf.written import changed

GPT2 = {
    "transformer.wte": "token_embd", "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm", "lm_head": "output", "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}  # fmt: skip
STARCODER2 = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}  # fmt: skip
FALCON = {
    "transformer.word_embeddings": "token_embd", "transformer.ln_f": "output_norm",
    "lm_head": "output", "input_layernorm": "attn_norm", "ln_mlp": "attn_norm",
    "ln_attn": "attn_norm_2", "self_attention.query_key_value": "attn_qkv",
    "self_attention.dense": "attn_output", "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
}  # fmt: skip

BLOOM = {**FALCON, "transformer.word_embeddings_layernorm": "token_embd_norm",
         "post_attention_layernorm": "ffn_norm"}  # fmt: skip
MPT = {
    "transformer.wte": "token_embd", "transformer.norm_f": "output_norm", "lm_head": "output",
    "norm_1": "attn_norm", "attn.Wqkv": "attn_qkv", "attn.out_proj": "attn_output",
    "norm_2": "ffn_norm", "ffn.up_proj": "ffn_up", "ffn.down_proj": "ffn_down",
}  # fmt: skip

BASE = float(np.float32(999999.4420358813))  # as files round it

# variant -> architecture, KV heads, and the keys beside the sizes
FILES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "gpt2": ("gpt2", 4, {}),
    "starcoder": ("starcoder", 1, {}),
    "starcoder-by-head": ("starcoder", 4, {}),
    "starcoder2": (
        "starcoder2", 2, {"rope.freq_base": BASE, "attention.sliding_window": 24}
    ),
    "starcoder2-no-bias": (
        "starcoder2", 1, {"rope.freq_base": 1e5, "attention.sliding_window": 0}
    ),
    "bloom": ("bloom", 6, {}),
    "bloom-old": ("bloom", 4, {}),
    "mpt": ("mpt", 6, {"attention.max_alibi_bias": 8.0}),
    "mpt-clipped": ("mpt", 4, {"attention.max_alibi_bias": 8.0, "attention.clamp_kqv": 0.75}),
    "falcon": ("falcon", 1, {"tensor_data_layout": "jploski"}),
    "falcon-by-group": ("falcon", 2, {"tensor_data_layout": "jploski"}),
    "falcon-by-head": ("falcon", 3, {"tensor_data_layout": "jploski"}),
    "falcon-one-norm": (
        "falcon", 1, {"tensor_data_layout": "jploski", "rope.freq_base": 500042.0}
    ),
}  # fmt: skip


def directory(path: Path, variant: str) -> Path:
    golden = golden_of(variant)
    return write_directory(path, variant, golden["shapes"], golden["seed"])


def gguf_file(
    path: Path, variant: str, changes: dict[str, Any] | None = None, *, quantised: bool = False
) -> Path:
    architecture, kv_heads, more = FILES[variant]
    config = config_of(variant)

    def size(*names: str, default: int = 0) -> int:
        return next((config[name] for name in names if config.get(name)), default)

    hidden = size("hidden_size", "n_embd", "n_embed", "d_model")
    metadata: dict[str, Any] = {
        "context_length": size(
            "max_position_embeddings", "n_positions", "seq_length", "max_seq_len", default=2048
        ),
        "embedding_length": hidden,
        "feed_forward_length": size(
            "intermediate_size", "n_inner", "ffn_hidden_size", default=4 * hidden
        ),
        "block_count": size("num_hidden_layers", "n_layer", "n_layers"),
        "attention.head_count": size("num_attention_heads", "n_head", "n_heads"),
        "attention.layer_norm_epsilon": 1e-5,
    }
    if architecture != "gpt2":
        metadata["attention.head_count_kv"] = kv_heads
    metadata |= {**more, **(changes or {})}
    metadata = {name: each for name, each in metadata.items() if each is not ...}
    tensors = converted(variant)
    matrices = [name for name, each in tensors.items() if each.ndim == 2]
    return write_gguf(
        path, architecture, metadata, tensors,
        quantised=matrices if quantised else (),
    )  # fmt: skip


def converted(variant: str) -> dict[str, FloatArray]:
    """The tensors as the converter writes them."""
    architecture, kv_heads, _ = FILES[variant]
    names = {"starcoder2": STARCODER2, "falcon": FALCON, "bloom": BLOOM, "mpt": MPT}.get(
        architecture, GPT2
    )
    found: dict[str, FloatArray] = {}
    for name, values in drawn(variant).items():
        stem, _, kind = name.rpartition(".")
        if stem in names:
            ours = f"{names[stem]}.{kind}"
        else:
            _, _, layer, part = stem.split(".", 3)
            ours = f"blk.{layer}.{names[part]}.{kind}"
        if architecture == "gpt2" and ours.startswith("blk.") and values.ndim == 2:
            values = np.ascontiguousarray(values.T)
        if "attn_qkv" in ours and architecture not in ("gpt2", "mpt"):
            values = in_turn(values, variant, kv_heads)
        found[ours] = values
    if architecture == "gpt2":
        found.setdefault("output.weight", found["token_embd.weight"])
    return found


def in_turn(values: FloatArray, variant: str, kv_heads: int) -> FloatArray:
    """All rows of q, then of k, then of v."""
    config = config_of(variant)
    heads = config.get("n_head") or config["num_attention_heads"]
    by_group = values.reshape(kv_heads, heads // kv_heads + 2, 96 // heads, *values.shape[1:])
    parts = (by_group[:, :-2], by_group[:, -2], by_group[:, -1])
    return np.concatenate([part.reshape(-1, *values.shape[1:]) for part in parts])


@pytest.mark.parametrize("variant", FILES)
def test_both_forms_have_the_same_bits(variant: str, tmp_path: Path) -> None:
    folder = directory(tmp_path / "directory", variant)
    if FILES[variant][0] == "starcoder":  # files do not say which, and the published models have it
        changed(folder, "config.json", activation_function="gelu")
    if variant == "mpt-clipped":  # the converter writes no scale of scores
        attention = {**config_of(variant)["attn_config"], "softmax_scale": None}
        changed(folder, "config.json", attn_config=attention)
    if variant == "starcoder2":
        changed(folder, "config.json", rope_theta=BASE)
    of_file = loaded(gguf_file(tmp_path / "model.gguf", variant))
    assert np.array_equal(logits(of_file), logits(loaded(folder)))


def test_how_steep_slopes_are_is_said_in_both_forms(tmp_path: Path) -> None:
    folder = directory(tmp_path / "directory", "mpt")
    attention = {**config_of("mpt")["attn_config"], "alibi_bias_max": 13}
    changed(folder, "config.json", attn_config=attention)
    steep = {"attention.max_alibi_bias": 13.0}
    got = logits(loaded(gguf_file(tmp_path / "steep.gguf", "mpt", steep)))
    assert np.array_equal(got, logits(loaded(folder)))
    assert not np.array_equal(got, logits(loaded(gguf_file(tmp_path / "mpt.gguf", "mpt"))))


@pytest.mark.parametrize("changes", [{"attention.max_alibi_bias": 0.0}, None])
def test_an_mpt_with_other_positions_is_refused(
    changes: dict[str, Any] | None, tmp_path: Path
) -> None:
    path = gguf_file(tmp_path / "mpt.gguf", "mpt", changes)
    if changes is None:
        path = gguf_file(tmp_path / "silent.gguf", "mpt", {"attention.max_alibi_bias": ...})
    said = r"metadata 'mpt.attention.max_alibi_bias' is 0 or missing: only ALiBi is supported"
    with pytest.raises(UnsupportedModelError, match=said):
        read_header(path).program()


def test_no_slopes_are_made_for_heads_beyond_any_models(tmp_path: Path) -> None:
    path = gguf_file(tmp_path / "bloom.gguf", "bloom", {"attention.head_count": 2**31})
    with pytest.raises(ModelFormatError, match="heads is 2147483648: expected at most 65536"):
        read_header(path)


def test_a_quantised_file_is_packed_row_by_row_as_it_is(tmp_path: Path) -> None:
    path = gguf_file(tmp_path / "falcon.gguf", "falcon-by-group", quantised=True)
    packed = loaded(path, weights=None)
    assert {matrix.format for matrix in packed.weights.matrices.values()} == {"W8"}
    chunks = all_logits(make_runner(packed, POOL, kv_dtype="f32"), TOKENS, cuts=(7, 50))
    assert np.array_equal(chunks, logits(packed))


def test_what_no_key_says_is_the_familys_and_shown(tmp_path: Path) -> None:
    config = read_header(gguf_file(tmp_path / "falcon.gguf", "falcon")).config
    assert (config.activation, config.assumed) == ("gelu", ("activation gelu",))


def test_a_context_that_its_table_of_positions_has_not_is_refused(tmp_path: Path) -> None:
    path = gguf_file(tmp_path / "gpt2.gguf", "gpt2", {"context_length": 512})
    said = r"gpt2.gguf: tensor 'position_embd.weight' at offset \d+: expected shape \(512, 96\), "
    with pytest.raises(ModelFormatError, match=rf"{said}found \(256, 96\)"):
        loaded(path)


def test_biases_that_only_some_of_its_layers_have_are_named(tmp_path: Path) -> None:
    """llama.cpp's own Falcon has none: a file that has them all runs, and none is left out."""
    found = gguf_file(tmp_path / "falcon.gguf", "falcon-by-head")
    used = read_header(found).program().weights()
    assert {name for name in converted("falcon-by-head") if "qkv" not in name} <= {*used}
