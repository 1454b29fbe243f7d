"""Falcon: attention and MLP read the same rows, and are added at once   (Almazrouei et al. 2023).

One LayerNorm for both or one for each; RoPE, few KV heads, MLPs without gates. Also the first ones,
whose MLP follows attention and whose scores may fall with distance instead, and StarCoder2, whose
MLP follows attention; layers may be windowed   (Lozhkov et al. 2024).
"""

from __future__ import annotations

from octavo.model.config import ModelConfig
from octavo.model.norms import layer_norm
from octavo.program.builder import ProgramBuilder
from octavo.program.ops import KVSpec, Value, WeightSpec
from octavo.program.program import Program


def build(cfg: ModelConfig) -> Program:
    p = ProgramBuilder()
    if cfg.slopes is None:
        p.rope_table("default", cfg.rope_frequencies(), cfg.rope_amplitude)
    groups = p.kv_groups(
        KVSpec(cfg.kv_heads, cfg.stored_head_dim, cfg.stored_head_dim), cfg.windows
    )
    embedding = WeightSpec("token_embd.weight", (cfg.vocab_size, cfg.hidden_size))

    h = p.embed(embedding)
    for i in range(cfg.num_layers):
        h = _layer(p, cfg, groups[i], f"blk.{i}", h)
    h = layer_norm(p, cfg, "output_norm", h)
    return p.logits(h, cfg.head_weight(embedding))


def _layer(p: ProgramBuilder, cfg: ModelConfig, group: int, block: str, h: Value) -> Value:
    if cfg.parallel_norms == 0:
        h = _attention(p, cfg, group, block, layer_norm(p, cfg, f"{block}.attn_norm", h), h)
        return _mlp(p, cfg, block, layer_norm(p, cfg, f"{block}.ffn_norm", h), h)
    x = y = layer_norm(p, cfg, f"{block}.attn_norm", h)
    if cfg.parallel_norms == 2:
        y = layer_norm(p, cfg, f"{block}.attn_norm_2", h)
    return _mlp(p, cfg, block, x, _attention(p, cfg, group, block, y, h))


def _attention(
    p: ProgramBuilder, cfg: ModelConfig, group: int, block: str, x: Value, h: Value
) -> Value:
    q_size, kv_size = cfg.heads * cfg.stored_head_dim, cfg.kv_heads * cfg.stored_head_dim
    q, k, v = (
        _linear(p, f"{block}.{name}", x, rows, bias=cfg.qkv_bias)
        for name, rows in (("attn_q", q_size), ("attn_k", kv_size), ("attn_v", kv_size))
    )
    if cfg.slopes is None:
        q = p.rope(q, heads=cfg.heads, style=cfg.rope_style)
        k = p.rope(k, heads=cfg.kv_heads, style=cfg.rope_style)
    a = p.attention(
        q, k, v, heads=cfg.heads, group=group, scale=cfg.head_dim**-0.5, slopes=cfg.slopes
    )
    return _linear(p, f"{block}.attn_output", a, h.width, bias=cfg.output_bias, add=h)


def _mlp(p: ProgramBuilder, cfg: ModelConfig, block: str, x: Value, h: Value) -> Value:
    up = _linear(p, f"{block}.ffn_up", x, cfg.ffn_size, bias=cfg.ffn_bias)
    g = p.activate(up, cfg.activation)
    return _linear(p, f"{block}.ffn_down", g, h.width, bias=cfg.ffn_bias, add=h)


def _linear(
    p: ProgramBuilder, name: str, x: Value, rows: int, *, bias: bool, add: Value | None = None
) -> Value:
    vector = WeightSpec(f"{name}.bias", (rows,)) if bias else None
    return p.linear(x, WeightSpec(f"{name}.weight", (rows, x.width)), bias=vector, add=add)
