"""gpt-oss: every MLP a mixture of experts with clamped gates; every other layer windowed, the first
one too; a sink logit for each head, and biases wherever there is a matrix   (OpenAI 2025)."""

from __future__ import annotations

from octavo.model.config import ModelConfig
from octavo.model.mixture import mixture
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

    h = p.embed(embedding)
    for i in range(cfg.num_layers):
        h = _layer(p, cfg, groups[i], i, h)
    h = p.rms_norm(h, WeightSpec("output_norm.weight", (cfg.hidden_size,)), cfg.norm_eps)
    return p.logits(h, cfg.head_weight(embedding))


def _layer(p: ProgramBuilder, cfg: ModelConfig, group: int, i: int, h: Value) -> Value:
    q_size, kv_size = cfg.heads * cfg.stored_head_dim, cfg.kv_heads * cfg.stored_head_dim

    def norm(x: Value, name: str) -> Value:
        return p.rms_norm(x, WeightSpec(f"blk.{i}.{name}.weight", (x.width,)), cfg.norm_eps)

    def linear(x: Value, name: str, rows: int, *, bias: bool, add: Value | None = None) -> Value:
        vector = WeightSpec(f"blk.{i}.{name}.bias", (rows,)) if bias else None
        return p.linear(
            x, WeightSpec(f"blk.{i}.{name}.weight", (rows, x.width)), bias=vector, add=add
        )

    def rotated(x: Value, heads: int) -> Value:
        return p.rope(x, heads=heads, style=cfg.rope_style)

    x = norm(h, "attn_norm")
    q = rotated(linear(x, "attn_q", q_size, bias=cfg.qkv_bias), cfg.heads)
    k = rotated(linear(x, "attn_k", kv_size, bias=cfg.qkv_bias), cfg.kv_heads)
    v = linear(x, "attn_v", kv_size, bias=cfg.qkv_bias)
    a = p.attention(
        q, k, v, heads=cfg.heads, group=group, scale=cfg.score_scale,
        sink_logits=WeightSpec(f"blk.{i}.attn_sinks.weight", (cfg.heads,)),
    )  # fmt: skip
    h = linear(a, "attn_output", cfg.hidden_size, bias=cfg.output_bias, add=h)
    assert cfg.mixture is not None
    return mixture(p, cfg.mixture, i, norm(h, "post_attention_norm"), add=h)
