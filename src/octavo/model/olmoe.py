"""OLMoE: a Llama whose layers have experts, with norms over all heads of q and of k together; some
have q, k and v kept within a limit   (Muennighoff et al. 2024)."""

from __future__ import annotations

from octavo.model.config import ModelConfig
from octavo.model.mixture import mixture
from octavo.program.builder import ProgramBuilder
from octavo.program.ops import KVSpec, Value, WeightSpec
from octavo.program.program import Program


def build(cfg: ModelConfig) -> Program:
    p = ProgramBuilder()
    p.rope_table("default", cfg.rope_frequencies(), cfg.rope_amplitude)
    group = p.kv_group(KVSpec(cfg.kv_heads, cfg.head_dim, cfg.head_dim))
    embedding = WeightSpec("token_embd.weight", (cfg.vocab_size, cfg.hidden_size))

    h = p.embed(embedding)
    for i in range(cfg.num_layers):
        h = _layer(p, cfg, group, i, h)
    h = p.rms_norm(h, WeightSpec("output_norm.weight", (cfg.hidden_size,)), cfg.norm_eps)
    return p.logits(h, cfg.head_weight(embedding))


def _layer(p: ProgramBuilder, cfg: ModelConfig, group: int, i: int, h: Value) -> Value:
    q_size, kv_size = cfg.heads * cfg.head_dim, cfg.kv_heads * cfg.head_dim

    def norm(x: Value, name: str) -> Value:
        return p.rms_norm(x, WeightSpec(f"blk.{i}.{name}.weight", (x.width,)), cfg.norm_eps)

    def linear(x: Value, name: str, rows: int, *, bias: bool, add: Value | None = None) -> Value:
        matrix = WeightSpec(f"blk.{i}.{name}.weight", (rows, x.width))
        return p.linear(
            x, matrix, bias=WeightSpec(f"blk.{i}.{name}.bias", (rows,)) if bias else None, add=add
        )

    def limited(x: Value) -> Value:
        return p.clamp(x, cfg.qkv_limit) if cfg.qkv_limit else x

    x = norm(h, "attn_norm")
    q = limited(norm(linear(x, "attn_q", q_size, bias=cfg.qkv_bias), "attn_q_norm"))
    k = limited(norm(linear(x, "attn_k", kv_size, bias=cfg.qkv_bias), "attn_k_norm"))
    v = limited(linear(x, "attn_v", kv_size, bias=cfg.qkv_bias))
    q = p.rope(q, heads=cfg.heads, style=cfg.rope_style)
    k = p.rope(k, heads=cfg.kv_heads, style=cfg.rope_style)
    a = p.attention(q, k, v, heads=cfg.heads, group=group, scale=cfg.score_scale)
    h = linear(a, "attn_output", cfg.hidden_size, bias=cfg.output_bias, add=h)

    x = norm(h, "ffn_norm")
    assert cfg.mixture is not None
    return mixture(p, cfg.mixture, i, x, add=h)
