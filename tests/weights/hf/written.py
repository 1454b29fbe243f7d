"""Model directories in the layout of Hugging Face, written as transformers writes them.

Comes in: our config, our weights, a `TokenizerSpec`. Knows their names by itself, so that ours are
held against something. Knows no torch.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from octavo.batch import FloatArray
from octavo.model.config import ModelConfig
from octavo.tokenizer.spec import TokenizerSpec, TokenType
from octavo.weights.model_header import read_header
from octavo.weights.model_weights import reference_weights

Dtype = Literal["F32", "BF16", "F16"]
_LAYER = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
}  # fmt: skip
_NORMS = {
    "llama": {"ffn_norm": "post_attention_layernorm"},
    "gemma3": {
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
}
_CLASSES = {
    "llama": ("LlamaForCausalLM", "llama"),
    "qwen2": ("Qwen2ForCausalLM", "qwen2"),
    "gemma3": ("Gemma3ForCausalLM", "gemma3_text"),
}


def write_model(
    path: Path,
    config: ModelConfig,
    weights: Mapping[str, FloatArray],
    *,
    dtype: Dtype = "F32",
    form: Literal["old", "new"] = "new",
    shards: int = 1,
) -> Path:
    """config.json and the weights, by the program's names, with norms as the program has them."""
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / "config.json", config_json(config, form=form))
    tensors = {their_name(n, config): their_values(n, w, config) for n, w in weights.items()}
    write_weights(path, tensors, dtype=dtype, shards=shards)
    return path


def directory_of(gguf: Path, path: Path, *, dtype: Dtype = "F32") -> Path:
    """The same model as a GGUF file's."""
    header = read_header(gguf)
    weights = reference_weights(header, header.program().weights())
    write_model(path, header.config, weights, dtype=dtype)
    write_tokenizer(path, header.tokenizer_spec())
    return path


def write_weights(
    path: Path, tensors: Mapping[str, FloatArray], *, dtype: Dtype = "F32", shards: int = 1
) -> None:
    if shards == 1:
        write_safetensors(path / "model.safetensors", tensors, dtype=dtype)
        return
    names = list(tensors)
    index: dict[str, str] = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name] for name in names[number::shards]}
        write_safetensors(path / file, part, dtype=dtype)
        index |= dict.fromkeys(part, file)
    write_json(path / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})


def write_safetensors(
    path: Path, tensors: Mapping[str, FloatArray], *, dtype: Dtype = "F32"
) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = []
    at = 0
    for name, values in tensors.items():
        of_bytes = values.dtype == np.uint8
        raw = values.tobytes() if of_bytes else encoded(values, dtype)
        header[name] = {
            "dtype": "U8" if of_bytes else dtype, "shape": list(values.shape),
            "data_offsets": [at, at + len(raw)],
        }  # fmt: skip
        data.append(raw)
        at += len(raw)
    with path.open("wb") as file:
        file.writelines([safetensors_bytes(header, b""), *data])


def safetensors_bytes(header: Mapping[str, Any] | bytes, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def encoded(values: FloatArray, dtype: Dtype) -> bytes:
    """BF16 must hold the values: nothing is rounded here."""
    values = np.ascontiguousarray(values, np.float32)
    if dtype == "F32":
        return values.astype("<f4").tobytes()
    if dtype == "F16":
        return values.astype("<f2").tobytes()
    bits = values.view(np.uint32)
    assert not (bits & 0xFFFF).any()
    return (bits >> 16).astype("<u2").tobytes()


def bf16(values: FloatArray) -> FloatArray:
    """The nearest values that bf16 holds, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    bits = bits + 0x7FFF + (bits >> 16 & 1)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


def their_name(name: str, config: ModelConfig) -> str:
    top = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
    }
    if name in top:
        return top[name]
    _, layer, part, kind = name.split(".")
    names = {**_LAYER, **_NORMS["gemma3" if config.architecture == "gemma3" else "llama"]}
    return f"model.layers.{layer}.{names[part]}.{kind}"


def their_values(name: str, values: FloatArray, config: ModelConfig) -> FloatArray:
    """Norms of Gemma are added to 1; a head's rotated pairs stand half a head apart."""
    if config.architecture == "gemma3" and name.endswith("norm.weight"):
        return values - np.float32(1)
    if config.rope_style == "interleaved" and (".attn_q." in name or ".attn_k." in name):
        pairs = values.reshape(-1, config.head_dim // 2, 2, *values.shape[1:])
        return pairs.swapaxes(1, 2).reshape(values.shape)
    return values


def config_json(config: ModelConfig, *, form: Literal["old", "new"] = "new") -> dict[str, Any]:
    class_name, model_type = _CLASSES[config.architecture]
    found: dict[str, Any] = {
        "architectures": [class_name], "model_type": model_type, "bos_token_id": 1,
        "eos_token_id": 2, "hidden_size": config.hidden_size,
        "intermediate_size": config.ffn_size, "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.heads, "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim, "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context, "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied_head, "initializer_range": 0.02, "use_cache": True,
        "attention_dropout": 0.0, "pad_token_id": None,
        "dtype" if form == "new" else "torch_dtype": "bfloat16",
        "transformers_version": "5.24.0" if form == "new" else "4.50.0",
    }  # fmt: skip
    linear = {"rope_type": "linear", "factor": config.rope_scale}
    scaling = linear if config.rope_scale != 1 else {"rope_type": "default"}
    if config.architecture != "gemma3":
        found |= {"hidden_act": "silu"}
        if form == "new":
            return {**found, "rope_parameters": {**scaling, "rope_theta": config.rope_base}}
        old = None if config.rope_scale == 1 else {"type": "linear", "factor": config.rope_scale}
        return {**found, "rope_theta": config.rope_base, "rope_scaling": old}
    found |= {
        "hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": config.head_dim,
        "sliding_window": config.window or 24, "attn_logit_softcapping": None,
        "final_logit_softcapping": None, "attention_bias": False,
    }  # fmt: skip
    if form == "old":
        return {
            **found, "sliding_window_pattern": [*config.windowed, False].index(False) + 1,
            "rope_theta": config.rope_base,
            "rope_local_base_freq": config.local_rope_base,
            "rope_scaling": None if config.rope_scale == 1 else linear,
        }  # fmt: skip
    return {
        **found,
        "_sliding_window_pattern": 6,  # written whatever layer_types say
        "layer_types": [
            "full_attention" if config.is_full(i) else "sliding_attention"
            for i in range(config.num_layers)
        ],
        "rope_parameters": {
            "full_attention": {**scaling, "rope_theta": config.rope_base},
            "sliding_attention": {"rope_type": "default", "rope_theta": config.local_rope_base},
        },
    }


def write_tokenizer(path: Path, spec: TokenizerSpec) -> None:
    """tokenizer.json, tokenizer_config.json, generation_config.json and the chat template."""
    write_json(path / "tokenizer.json", tokenizer_json(spec))
    names = {"bos_token": spec.bos_id, "eos_token": spec.eos_id, "pad_token": spec.pad_id}
    special = {name: spec.tokens[i] for name, i in names.items() if i is not None}
    write_json(path / "tokenizer_config.json", special)
    write_json(path / "generation_config.json", {"eos_token_id": spec.eos_id})
    if spec.chat_template is not None:
        (path / "chat_template.jinja").write_text(spec.chat_template, encoding="utf-8")


def tokenizer_json(spec: TokenizerSpec) -> dict[str, Any]:
    """As the family's own file is: SmolLM2's, or Gemma's and Llama 2's."""
    assert spec.kind == "spm" or spec.pre == "smollm"
    blank = "\u2581" if spec.kind == "spm" else " "  # converters spell it in user-defined pieces
    tokens = [token.replace(" ", blank) for token in spec.tokens]
    if spec.kind == "bpe":
        model: dict[str, Any] = {"byte_fallback": False, "merges": spec.merges}
        parts = {
            "normalizer": None,
            "pre_tokenizer": _sequence(
                "pretokenizers",
                {"type": "Digits", "individual_digits": True},
                _byte_level(),
            ),
            "decoder": _byte_level(),
        }  # fmt: skip
    else:
        assert spec.scores is not None
        model = {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>",
                 "merges": _spm_merges(spec, tokens)}  # fmt: skip
        blanks = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
        first = {"type": "Prepend", "prepend": "\u2581"}
        parts = {
            "normalizer": _sequence("normalizers", first, blanks)
            if spec.add_space_prefix
            else blanks,
            "pre_tokenizer": None,
        }
    added = [
        {"id": i, "content": tokens[i], "special": spec.types[i] != TokenType.USER_DEFINED,
         "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        for i in range(len(tokens))
        if spec.types[i] in (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.USER_DEFINED)
    ]  # fmt: skip
    vocab = {token: i for i, token in enumerate(tokens)}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, **parts,
        "post_processor": _post_processor(spec),
        "model": {"type": "BPE", "dropout": None, "ignore_merges": False, "vocab": vocab, **model},
    }  # fmt: skip


def _post_processor(spec: TokenizerSpec) -> dict[str, Any]:
    if not spec.add_bos or spec.bos_id is None:
        return _byte_level()
    bos = spec.tokens[spec.bos_id]
    single = [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    pair = [*single, {"Sequence": {"id": "B", "type_id": 0}}]
    special = {bos: {"id": bos, "ids": [spec.bos_id], "tokens": [bos]}}
    return {
        "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special,
    }  # fmt: skip


def _spm_merges(spec: TokenizerSpec, tokens: Sequence[str]) -> list[list[str]]:
    """As transformers converts them: every pair that makes a piece, by the piece's score; those of
    user-defined pieces, which no score can part, before all others."""
    assert spec.scores is not None
    ids = {token: i for i, token in enumerate(tokens)}
    found = []
    for token in tokens:
        pairs = [(token[:at], token[at:]) for at in range(1, len(token))]
        local = [pair for pair in pairs if pair[0] in ids and pair[1] in ids]
        found += sorted(local, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
    user_defined = set(spec.user_defined_ids)
    rank = [(i not in user_defined, -score) for i, score in enumerate(spec.scores)]
    found.sort(key=lambda pair: rank[ids[pair[0] + pair[1]]])
    return [list(pair) for pair in found]


def _byte_level() -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def _sequence(inner: str, *parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", inner: list(parts)}


def changed(path: Path, file: str, **changes: Any) -> None:
    """Change fields of a JSON file; `...` takes one away."""
    found = {**json.loads((path / file).read_text(encoding="utf-8")), **changes}
    write_json(path / file, {name: value for name, value in found.items() if value is not ...})


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
