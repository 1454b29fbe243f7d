"""MPT: no biases, not even of LayerNorms; scores that fall with distance (ALiBi), no positions; q,
k and v may be clamped   (MosaicML 2023). Its files keep q, k and v in one tensor.
"""

from __future__ import annotations

from octavo.model.config import ModelConfig
from octavo.program.builder import ProgramBuilder
from octavo.program.ops import KVSpec, Value, WeightSpec
from octavo.program.program import Program


def build(cfg: ModelConfig) -> Program:
    p = ProgramBuilder()
    group = p.kv_group(KVSpec(cfg.kv_heads, cfg.stored_head_dim, cfg.stored_head_dim))
    embedding = WeightSpec("token_embd.weight", (cfg.vocab_size, cfg.hidden_size))

    h = p.embed(embedding)
    for i in range(cfg.num_layers):
        h = _layer(p, cfg, group, f"blk.{i}", h)
    h = _norm(p, cfg, "output_norm", h)
    return p.logits(h, cfg.head_weight(embedding))


def _layer(p: ProgramBuilder, cfg: ModelConfig, group: int, block: str, h: Value) -> Value:
    q_size, kv_size = cfg.heads * cfg.stored_head_dim, cfg.kv_heads * cfg.stored_head_dim

    def linear(x: Value, name: str, rows: int, *, add: Value | None = None) -> Value:
        return p.linear(x, WeightSpec(f"{block}.{name}.weight", (rows, x.width)), add=add)

    x = _norm(p, cfg, f"{block}.attn_norm", h)
    q, k, v = (
        linear(x, name, rows)
        for name, rows in (("attn_q", q_size), ("attn_k", kv_size), ("attn_v", kv_size))
    )
    if cfg.qkv_limit:
        q, k, v = (p.clamp(each, cfg.qkv_limit) for each in (q, k, v))
    a = p.attention(q, k, v, heads=cfg.heads, group=group, scale=cfg.score_scale, slopes=cfg.slopes)
    h = linear(a, "attn_output", cfg.hidden_size, add=h)

    x = _norm(p, cfg, f"{block}.ffn_norm", h)
    g = p.activate(linear(x, "ffn_up", cfg.ffn_size), cfg.activation)
    return linear(g, "ffn_down", cfg.hidden_size, add=h)


def _norm(p: ProgramBuilder, cfg: ModelConfig, name: str, x: Value) -> Value:
    return p.layer_norm(x, WeightSpec(f"{name}.weight", (x.width,)), None, cfg.norm_eps)
