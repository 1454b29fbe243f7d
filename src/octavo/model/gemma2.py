"""The Gemma 2 family   (Gemma Team 2024).

Norms before and after each block; GeGLU; a windowed layer to each full one; scores and logits that
a tanh caps.
"""

from __future__ import annotations

from octavo.model.config import ModelConfig
from octavo.program.builder import ProgramBuilder
from octavo.program.ops import KVSpec, Value, WeightSpec
from octavo.program.program import Program


def build(cfg: ModelConfig) -> Program:
    p = ProgramBuilder()
    p.rope_table("default", cfg.rope_frequencies(), cfg.rope_amplitude)
    groups = p.kv_groups(
        KVSpec(cfg.kv_heads, cfg.stored_head_dim, cfg.stored_head_dim), cfg.windows
    )
    embedding = WeightSpec("token_embd.weight", (cfg.vocab_size, cfg.hidden_size))

    h = p.scale(p.embed(embedding), cfg.hidden_size**0.5)
    for i in range(cfg.num_layers):
        h = _layer(p, cfg, groups[i], i, h)
    h = p.rms_norm(h, WeightSpec("output_norm.weight", (cfg.hidden_size,)), cfg.norm_eps)
    return p.logits(h, cfg.head_weight(embedding), softcap=cfg.logit_softcap)


def _layer(p: ProgramBuilder, cfg: ModelConfig, group: int, i: int, h: Value) -> Value:
    q_size, kv_size = cfg.heads * cfg.stored_head_dim, cfg.kv_heads * cfg.stored_head_dim

    def norm(x: Value, name: str) -> Value:
        return p.rms_norm(x, WeightSpec(f"blk.{i}.{name}.weight", (x.width,)), cfg.norm_eps)

    def linear(x: Value, name: str, rows: int, *, bias: bool = False) -> Value:
        vector = WeightSpec(f"blk.{i}.{name}.bias", (rows,)) if bias else None
        return p.linear(x, WeightSpec(f"blk.{i}.{name}.weight", (rows, x.width)), bias=vector)

    x = norm(h, "attn_norm")
    q = linear(x, "attn_q", q_size, bias=cfg.qkv_bias)
    k = linear(x, "attn_k", kv_size, bias=cfg.qkv_bias)
    a = p.attention(
        p.rope(q, heads=cfg.heads, style=cfg.rope_style),
        p.rope(k, heads=cfg.kv_heads, style=cfg.rope_style),
        linear(x, "attn_v", kv_size, bias=cfg.qkv_bias),
        heads=cfg.heads, group=group, scale=cfg.score_scale, softcap=cfg.attention_softcap,
    )  # fmt: skip
    a = linear(a, "attn_output", cfg.hidden_size, bias=cfg.output_bias)
    h = p.add(norm(a, "post_attention_norm"), h)

    x = norm(h, "ffn_norm")
    g = p.gated(linear(x, "ffn_gate", cfg.ffn_size), linear(x, "ffn_up", cfg.ffn_size), "gelu_tanh")
    return p.add(norm(linear(g, "ffn_down", cfg.hidden_size), "post_ffw_norm"), h)
