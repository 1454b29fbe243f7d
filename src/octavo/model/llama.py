"""The Llama family: RMSNorm, RoPE, grouped-query attention, SwiGLU   (Touvron et al. 2023).

Also Mistral, Phi-3 and SmolLM; Qwen2 (biases on q, k, v; Llamas may have more), Qwen3 (norms of
their heads), SmolLM3 (some layers have no RoPE), Ministral 3 (queries scaled by position) and
Granite (multipliers). Any layers may be windowed, and any have experts: Mixtral, Qwen3-MoE, Granite
MoE, and with an MLP beside them its shared form. MHA, GQA and MQA differ by head counts only; which
weights lie in one tensor the files' tables know.
"""

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
    if cfg.embedding_scale != 1:
        h = p.scale(h, cfg.embedding_scale)
    for i in range(cfg.num_layers):
        h = _layer(p, cfg, groups[i], i, h)
    h = p.rms_norm(h, WeightSpec("output_norm.weight", (cfg.hidden_size,)), cfg.norm_eps)
    return p.logits(h, cfg.head_weight(embedding), scale=cfg.logit_scale)


def _layer(p: ProgramBuilder, cfg: ModelConfig, group: int, i: int, h: Value) -> Value:
    q_size, kv_size = cfg.heads * cfg.stored_head_dim, cfg.kv_heads * cfg.stored_head_dim

    def norm(x: Value, name: str, *, heads: int = 1) -> Value:
        weight = WeightSpec(f"blk.{i}.{name}.weight", (x.width // heads,))
        return p.rms_norm(x, weight, cfg.norm_eps, heads=heads)

    def linear(
        x: Value, name: str, rows: int, *, bias: bool = False, add: Value | None = None
    ) -> Value:
        matrix = WeightSpec(f"blk.{i}.{name}.weight", (rows, x.width))
        vector = WeightSpec(f"blk.{i}.{name}.bias", (rows,)) if bias else None
        scale = 1.0 if add is None else cfg.residual_scale
        return p.linear(x, matrix, bias=vector, scale=scale, add=add)

    def rotated(x: Value, name: str, heads: int) -> Value:
        if cfg.qk_norm:
            x = norm(x, f"{name}_norm", heads=heads)
        return p.rope(x, heads=heads, style=cfg.rope_style) if cfg.has_rope(i) else x

    x = norm(h, "attn_norm")
    q = rotated(linear(x, "attn_q", q_size, bias=cfg.qkv_bias), "attn_q", cfg.heads)
    if cfg.position_beta:
        q = p.scale_by_position(q, cfg.position_beta, cfg.position_original)
    k = rotated(linear(x, "attn_k", kv_size, bias=cfg.qkv_bias), "attn_k", cfg.kv_heads)
    v = linear(x, "attn_v", kv_size, bias=cfg.qkv_bias)
    a = p.attention(q, k, v, heads=cfg.heads, group=group, scale=cfg.score_scale)
    h = linear(a, "attn_output", cfg.hidden_size, bias=cfg.output_bias, add=h)

    def mlp(x: Value, kind: str, size: int, add: Value) -> Value:
        gate = linear(x, f"ffn_gate{kind}", size, bias=cfg.ffn_bias)
        up = linear(x, f"ffn_up{kind}", size, bias=cfg.ffn_bias)
        g = p.gated(gate, up, "silu")
        return linear(g, f"ffn_down{kind}", cfg.hidden_size, bias=cfg.ffn_bias, add=add)

    x = norm(h, "ffn_norm")
    experts = cfg.mixture_of(i)
    if experts is None:
        return mlp(x, "", cfg.ffn_size, h)
    h = mixture(p, experts, i, x, scale=cfg.residual_scale, add=h)
    return mlp(x, "_shexp", experts.shared_ffn_size, h) if experts.shared_ffn_size else h
