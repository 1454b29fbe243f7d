"""How families store several weights in one tensor: views of q, k, v and of gate, up; how files
store experts; and how the heads of any family are filled up.

Comes in: a `ModelConfig`. Goes out: views by part, for a family's table. Tensors are called as
llama.cpp does: `attn_qkv`; gate and up together are `ffn_up`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

from octavo.errors import UnsupportedModelError
from octavo.model.config import ModelConfig
from octavo.weights.gguf_header import TensorInfo
from octavo.weights.weight_view import WHOLE, Padding, Views, WeightView

_QKV = ("attn_q", "attn_k", "attn_v")
_GLU = ("ffn_gate", "ffn_up", "ffn_down")
_OF_ONE_EXPERT = re.compile(r"\.ffn_(gate|up|down)\.[0-9]+\.")
_IN_PAIRS = ".ffn_pairs_exps."
_GATE_OR_UP = re.compile(r"\.ffn_(gate|up)_exps\.")


def shared(tensor: str, blocks: Sequence[tuple[str, int]]) -> Views:
    """The weights that share a tensor: whose rows come, and how many, in the tensor's order."""
    ends = [0, *accumulate(size for _, size in blocks)]
    runs: dict[str, tuple[range, ...]] = {}
    for (part, _), (start, stop) in zip(blocks, pairwise(ends), strict=True):
        runs[part] = (*runs.get(part, ()), range(start, stop))
    return {part: WeightView(tensor, rows, of=ends[-1]) for part, rows in runs.items()}


def qkv_in_turn(cfg: ModelConfig) -> Views:
    """All heads of q, all of k, all of v: Phi-3, GPT-2, and whoever has one KV head."""
    sizes = (cfg.heads, cfg.kv_heads, cfg.kv_heads)
    return shared("attn_qkv", [(p, n * cfg.head_dim) for p, n in zip(_QKV, sizes, strict=True)])


def qkv_by_group(cfg: ModelConfig) -> Views:
    """Each KV head's heads of q, its k and its v follow each other: Falcon-40B; with as many KV
    heads as heads also the first Falcons and StarCoder's without multi_query."""
    sizes = (cfg.heads // cfg.kv_heads, 1, 1)
    group = [(p, n * cfg.head_dim) for p, n in zip(_QKV, sizes, strict=True)]
    return shared("attn_qkv", group * cfg.kv_heads)


def gate_up_in_turn(cfg: ModelConfig) -> Views:
    """The gate's rows, then up's: Phi-3."""
    return shared("ffn_up", [("ffn_gate", cfg.ffn_size), ("ffn_up", cfg.ffn_size)])


def phi3(cfg: ModelConfig) -> Views:
    return {**qkv_in_turn(cfg), **gate_up_in_turn(cfg)}


def expert_stacks(cfg: ModelConfig, tensors: Mapping[str, TensorInfo]) -> Views:
    """The matrices of all experts: in one tensor of three dimensions, gate and up apart or in one,
    or one tensor an expert (older files, and most directories)."""
    if cfg.mixture is None:
        return {}
    experts, ffn = cfg.mixture.experts, cfg.mixture.ffn_size
    if any(_IN_PAIRS in name for name in tensors):
        return _in_pairs(experts, tensors)
    if any(_OF_ONE_EXPERT.search(name) for name in tensors):
        return {
            f"{part}_exps": WeightView(tensors=tuple(f"{part}.{e}" for e in range(experts)))
            for part in _GLU
        }
    views: dict[str, WeightView] = {f"{part}_exps": WHOLE for part in _GLU}
    if not any(_GATE_OR_UP.search(name) for name in tensors):
        pairs = [("ffn_gate_exps", ffn), ("ffn_up_exps", ffn)] * experts
        views.update(shared("ffn_gate_up_exps", pairs))
    return {part: replace(view, stacked=experts) for part, view in views.items()}


def _in_pairs(experts: int, tensors: Mapping[str, TensorInfo]) -> Views:
    """gpt-oss's: gate's rows and up's by turns; (in, out) where they are floats, else (out, in)."""
    floats = {
        info.type.block_values == 1
        for name, info in tensors.items() if name.endswith("_exps.weight")
    }  # fmt: skip
    if len(floats) > 1:
        raise UnsupportedModelError(
            "experts are quantised in some tensors and floats in others: they are run in one form"
        )
    are_floats = floats == {True}
    pairs = WeightView("ffn_pairs_exps", stacked=experts, transposed=are_floats)
    return {
        "ffn_gate_exps": replace(pairs, of_pairs=0),
        "ffn_up_exps": replace(pairs, of_pairs=1),
        "ffn_down_exps": WeightView(stacked=experts, transposed=are_floats),
    }


def latent_parts(cfg: ModelConfig, tensors: Mapping[str, TensorInfo]) -> Views:
    """What latent attention reads apart and files keep together: of a head's q, and of a token's
    row, the part without RoPE and the one with it; heads' matrices of K and of V, which newer GGUF
    files have apart, those of K transposed."""
    if cfg.latent is None:
        return {}
    sizes, heads = cfg.latent, cfg.heads
    nope, rope = sizes.qk_nope_head_dim, sizes.qk_rope_head_dim
    q = [("attn_q_plain", nope), ("attn_q_turned", rope)] * heads
    row = [("attn_kv_a", sizes.kv_lora_rank), ("attn_k_turned", rope)]
    views = {
        **shared("attn_q_b" if sizes.q_lora_rank else "attn_q", q), **shared("attn_kv_a_mqa", row)
    }  # fmt: skip
    if any(".attn_k_b." in name for name in tensors):
        apart = WeightView(stacked=heads)
        return {**views, "attn_k_b": apart, "attn_v_b": apart}
    both = shared("attn_kv_b", [("attn_k_b", nope), ("attn_v_b", sizes.v_head_dim)] * heads)
    return {**views, **both, "attn_k_b": replace(both["attn_k_b"], transposed_each=heads)}


def shared_expert_in_turn(cfg: ModelConfig) -> Views:
    """The gate's rows, then up's, of the MLP beside experts: Granite's."""
    size = cfg.mixture.shared_ffn_size if cfg.mixture else 0
    return shared("ffn_gate_up_shexp", [("ffn_gate_shexp", size), ("ffn_up_shexp", size)])


def transposed(views: Views, *parts: str) -> Views:
    """Return the views with these parts stored as (in, out): GPT-2's Conv1D."""
    return {**views, **{p: replace(views.get(p, WHOLE), transposed=True) for p in parts}}


def filled_up(views: Views, cfg: ModelConfig) -> Views:
    """Return the views with zeros after each head, up to what programs have."""
    if cfg.head_dim == cfg.stored_head_dim:
        return views
    pad = Padding(cfg.head_dim, cfg.stored_head_dim)
    rows = {part: replace(views.get(part, WHOLE), pad_rows=pad) for part in _QKV}
    output = replace(views.get("attn_output", WHOLE), pad_cols=pad)
    return {**views, **rows, "attn_output": output}
