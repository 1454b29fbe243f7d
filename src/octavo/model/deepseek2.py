"""DeepSeek-V2: latent attention, and mixtures of experts behind one dense layer or a few
(DeepSeek-AI 2024).

A head's K and V are W_k c and W_v c of a token's latent row c. So q.(W_k c) = (W_k^T q).c, and what
attention makes of the c is a head's V by W_v afterwards: the rows of all heads meet the latent rows
themselves, which are K and V of one KV head, whatever the number of rows. A part of K stands beside
c that turns with its position; c does not.
"""

from __future__ import annotations

from octavo.model.config import ModelConfig
from octavo.model.mixture import mixture
from octavo.program.builder import ProgramBuilder
from octavo.program.ops import KVSpec, Value, WeightSpec
from octavo.program.program import Program


def build(cfg: ModelConfig) -> Program:
    assert cfg.latent is not None
    p = ProgramBuilder()
    p.rope_table("default", cfg.rope_frequencies(), cfg.rope_amplitude)
    group = p.kv_group(KVSpec(1, cfg.latent.stored, cfg.latent.kv_lora_rank, v_in_k=True))
    embedding = WeightSpec("token_embd.weight", (cfg.vocab_size, cfg.hidden_size))

    h = p.embed(embedding)
    for i in range(cfg.num_layers):
        h = _layer(p, cfg, group, i, h)
    h = p.rms_norm(h, WeightSpec("output_norm.weight", (cfg.hidden_size,)), cfg.norm_eps)
    return p.logits(h, cfg.head_weight(embedding))


def _layer(p: ProgramBuilder, cfg: ModelConfig, group: int, i: int, h: Value) -> Value:
    sizes, heads = cfg.latent, cfg.heads
    assert sizes is not None
    rank, q_rank = sizes.kv_lora_rank, sizes.q_lora_rank

    def norm(x: Value, name: str) -> Value:
        return p.rms_norm(x, WeightSpec(f"blk.{i}.{name}.weight", (x.width,)), cfg.norm_eps)

    def linear(x: Value, name: str, rows: int, *, add: Value | None = None) -> Value:
        return p.linear(x, WeightSpec(f"blk.{i}.{name}.weight", (rows, x.width)), add=add)

    def by_head(x: Value, name: str, rows: int) -> Value:
        matrices = WeightSpec(f"blk.{i}.{name}.weight", (heads * rows, x.width // heads))
        return p.head_linear(x, matrices, heads=heads)

    def rotated(x: Value, name: str, heads: int) -> Value:
        x = linear(x, name, heads * sizes.qk_rope_head_dim)
        return p.rope(x, heads=heads, style=cfg.rope_style)

    x = norm(h, "attn_norm")
    of_q = norm(linear(x, "attn_q_a", q_rank), "attn_q_a_norm") if q_rank else x
    q = by_head(linear(of_q, "attn_q_plain", heads * sizes.qk_nope_head_dim), "attn_k_b", rank)
    q = p.join(q, rotated(of_q, "attn_q_turned", heads), heads=heads)
    row = norm(linear(x, "attn_kv_a", rank), "attn_kv_a_norm")
    k = p.join(row, rotated(x, "attn_k_turned", 1), heads=1)
    a = p.attention(q, k, heads=heads, group=group, scale=cfg.score_scale)
    h = linear(by_head(a, "attn_v_b", sizes.v_head_dim), "attn_output", cfg.hidden_size, add=h)

    def mlp(x: Value, kind: str, size: int, add: Value) -> Value:
        gate, up = (linear(x, f"ffn_{part}{kind}", size) for part in ("gate", "up"))
        return linear(p.gated(gate, up, "silu"), f"ffn_down{kind}", cfg.hidden_size, add=add)

    x = norm(h, "ffn_norm")
    experts = cfg.mixture_of(i)
    if experts is None:
        return mlp(x, "", cfg.ffn_size, h)
    h = mixture(p, experts, i, x, add=h)
    return mlp(x, "_shexp", experts.shared_ffn_size, h) if experts.shared_ffn_size else h
