"""How families store several weights in one tensor: views of q, k, v and of gate, up; and how the
heads of any family are filled up.

Comes in: a `ModelConfig`. Goes out: views by part, for a family's table. Tensors are called as
llama.cpp does: `attn_qkv`; gate and up together are `ffn_up`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise

from octavo.model.config import ModelConfig
from octavo.weights.weight_view import WHOLE, Padding, Views, WeightView

_QKV = ("attn_q", "attn_k", "attn_v")


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
