"""The OLMo 2 family: norms after the blocks only, and of all of q and of k   (OLMo Team 2024).

OLMo 3 too, which has windowed layers: their RoPE is the base's alone, however the full ones' is
scaled.
"""

from __future__ import annotations

from octavo.model.config import ModelConfig
from octavo.program.builder import ProgramBuilder
from octavo.program.ops import KVSpec, Value, WeightSpec
from octavo.program.program import Program


def build(cfg: ModelConfig) -> Program:
    p = ProgramBuilder()
    p.rope_table("full", cfg.rope_frequencies(), cfg.rope_amplitude)
    if cfg.windowed:
        p.rope_table("windowed", cfg.local_rope_frequencies())
    groups = p.kv_groups(KVSpec(cfg.kv_heads, cfg.head_dim, cfg.head_dim), cfg.windows)
    embedding = WeightSpec("token_embd.weight", (cfg.vocab_size, cfg.hidden_size))

    h = p.embed(embedding)
    for i in range(cfg.num_layers):
        h = _layer(p, cfg, groups[i], i, h)
    h = p.rms_norm(h, WeightSpec("output_norm.weight", (cfg.hidden_size,)), cfg.norm_eps)
    return p.logits(h, cfg.head_weight(embedding))


def _layer(p: ProgramBuilder, cfg: ModelConfig, group: int, i: int, h: Value) -> Value:
    is_full = cfg.is_full(i)
    q_size, kv_size = cfg.heads * cfg.head_dim, cfg.kv_heads * cfg.head_dim

    def norm(x: Value, name: str) -> Value:
        return p.rms_norm(x, WeightSpec(f"blk.{i}.{name}.weight", (x.width,)), cfg.norm_eps)

    def linear(x: Value, name: str, rows: int, *, bias: bool = False) -> Value:
        vector = WeightSpec(f"blk.{i}.{name}.bias", (rows,)) if bias else None
        return p.linear(x, WeightSpec(f"blk.{i}.{name}.weight", (rows, x.width)), bias=vector)

    def rotated(name: str, size: int, heads: int) -> Value:
        x = norm(linear(h, name, size, bias=cfg.qkv_bias), f"{name}_norm")
        table = "full" if is_full else "windowed"
        return p.rope(x, heads=heads, style=cfg.rope_style, table=table)

    q, k = rotated("attn_q", q_size, cfg.heads), rotated("attn_k", kv_size, cfg.kv_heads)
    v = linear(h, "attn_v", kv_size, bias=cfg.qkv_bias)
    a = p.attention(q, k, v, heads=cfg.heads, group=group, scale=cfg.score_scale)
    a = linear(a, "attn_output", cfg.hidden_size, bias=cfg.output_bias)
    h = p.add(norm(a, "post_attention_norm"), h)

    g = p.gated(linear(h, "ffn_gate", cfg.ffn_size), linear(h, "ffn_up", cfg.ffn_size), "silu")
    return p.add(norm(linear(g, "ffn_down", cfg.hidden_size), "post_ffw_norm"), h)
