"""The Gemma 3 family, its text part   (Gemma Team 2025).

Norms before and after each block, and of the heads of q and k; GeGLU; five windowed layers, with a
rotary base of their own, to each full one.
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

    h = p.scale(p.embed(embedding), cfg.hidden_size**0.5)
    for i in range(cfg.num_layers):
        h = _layer(p, cfg, groups[i], i, h)
    h = p.rms_norm(h, WeightSpec("output_norm.weight", (cfg.hidden_size,)), cfg.norm_eps)
    return p.logits(h, cfg.head_weight(embedding))


def _layer(p: ProgramBuilder, cfg: ModelConfig, group: int, i: int, h: Value) -> Value:
    is_full = cfg.is_full(i)
    q_size, kv_size = cfg.heads * cfg.head_dim, cfg.kv_heads * cfg.head_dim

    def norm(x: Value, name: str, *, heads: int = 1) -> Value:
        weight = WeightSpec(f"blk.{i}.{name}.weight", (x.width // heads,))
        return p.rms_norm(x, weight, cfg.norm_eps, heads=heads)

    def linear(x: Value, name: str, rows: int) -> Value:
        return p.linear(x, WeightSpec(f"blk.{i}.{name}.weight", (rows, x.width)))

    def rotated(x: Value, name: str, heads: int) -> Value:
        x = norm(x, name, heads=heads)
        table = "full" if is_full else "windowed"
        return p.rope(x, heads=heads, style=cfg.rope_style, table=table)

    x = norm(h, "attn_norm")
    q = rotated(linear(x, "attn_q", q_size), "attn_q_norm", cfg.heads)
    k = rotated(linear(x, "attn_k", kv_size), "attn_k_norm", cfg.kv_heads)
    v = linear(x, "attn_v", kv_size)
    a = p.attention(q, k, v, heads=cfg.heads, group=group, scale=cfg.score_scale)
    h = p.add(norm(linear(a, "attn_output", cfg.hidden_size), "post_attention_norm"), h)

    x = norm(h, "ffn_norm")
    g = p.gated(linear(x, "ffn_gate", cfg.ffn_size), linear(x, "ffn_up", cfg.ffn_size), "gelu_tanh")
    return p.add(norm(linear(g, "ffn_down", cfg.hidden_size), "post_ffw_norm"), h)
