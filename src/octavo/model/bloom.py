"""BLOOM: LayerNorms, one behind the embedding too; scores that fall with distance (ALiBi), no
positions   (BigScience 2022). Its files keep q, k and v in one tensor.
"""

from __future__ import annotations

from octavo.model.config import ModelConfig
from octavo.model.norms import layer_norm
from octavo.program.builder import ProgramBuilder
from octavo.program.ops import KVSpec, Value, WeightSpec
from octavo.program.program import Program


def build(cfg: ModelConfig) -> Program:
    p = ProgramBuilder()
    group = p.kv_group(KVSpec(cfg.kv_heads, cfg.stored_head_dim, cfg.stored_head_dim))
    embedding = WeightSpec("token_embd.weight", (cfg.vocab_size, cfg.hidden_size))

    h = layer_norm(p, cfg, "token_embd_norm", p.embed(embedding))
    for i in range(cfg.num_layers):
        h = _layer(p, cfg, group, f"blk.{i}", h)
    h = layer_norm(p, cfg, "output_norm", h)
    return p.logits(h, cfg.head_weight(embedding))


def _layer(p: ProgramBuilder, cfg: ModelConfig, group: int, block: str, h: Value) -> Value:
    q_size, kv_size = cfg.heads * cfg.stored_head_dim, cfg.kv_heads * cfg.stored_head_dim

    def linear(x: Value, name: str, rows: int, *, add: Value | None = None) -> Value:
        matrix = WeightSpec(f"{block}.{name}.weight", (rows, x.width))
        return p.linear(x, matrix, bias=WeightSpec(f"{block}.{name}.bias", (rows,)), add=add)

    x = layer_norm(p, cfg, f"{block}.attn_norm", h)
    q = linear(x, "attn_q", q_size)
    k, v = linear(x, "attn_k", kv_size), linear(x, "attn_v", kv_size)
    a = p.attention(
        q, k, v, heads=cfg.heads, group=group, scale=cfg.head_dim**-0.5, slopes=cfg.slopes
    )
    h = linear(a, "attn_output", cfg.hidden_size, add=h)

    x = layer_norm(p, cfg, f"{block}.ffn_norm", h)
    g = p.activate(linear(x, "ffn_up", cfg.ffn_size), cfg.activation)
    return linear(g, "ffn_down", cfg.hidden_size, add=h)
