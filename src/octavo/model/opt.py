"""OPT: LayerNorms, learned positions, an MLP without a gate   (Zhang et al. 2022).

The one of 350M has norms behind its blocks, and rows of tokens that a matrix widens; of others
(Galactica) LayerNorms have no weights and matrices no biases   (Taylor et al. 2022).
"""

from __future__ import annotations

from octavo.model.config import ModelConfig
from octavo.model.norms import layer_norm
from octavo.program.builder import ProgramBuilder
from octavo.program.ops import KVSpec, Value, WeightSpec
from octavo.program.program import Program

_FIRST = 2  # the row of the first position


def build(cfg: ModelConfig) -> Program:
    p = ProgramBuilder()
    group = p.kv_group(KVSpec(cfg.kv_heads, cfg.stored_head_dim, cfg.stored_head_dim))
    width = cfg.embedding_size or cfg.hidden_size
    embedding = WeightSpec("token_embd.weight", (cfg.vocab_size, width))
    positions = WeightSpec("position_embd.weight", (cfg.context + _FIRST, cfg.hidden_size))

    if cfg.embedding_size:
        h, at = p.embed(embedding), p.embed(None, positions=positions, offset=_FIRST)
        h = p.linear(h, WeightSpec("embd_in.weight", (cfg.hidden_size, width)), add=at)
    else:
        h = p.embed(embedding, positions=positions, offset=_FIRST)
    for i in range(cfg.num_layers):
        h = _layer(p, cfg, group, f"blk.{i}", h)
    if not cfg.norms_last:
        h = _norm(p, cfg, "output_norm", h)
    if cfg.embedding_size:
        h = p.linear(h, WeightSpec("embd_out.weight", (width, cfg.hidden_size)))
    return p.logits(h, cfg.head_weight(embedding))


def _layer(p: ProgramBuilder, cfg: ModelConfig, group: int, block: str, h: Value) -> Value:
    q_size, kv_size = cfg.heads * cfg.stored_head_dim, cfg.kv_heads * cfg.stored_head_dim

    def linear(x: Value, name: str, rows: int, *, add: Value | None = None) -> Value:
        matrix = WeightSpec(f"{block}.{name}.weight", (rows, x.width))
        bias = WeightSpec(f"{block}.{name}.bias", (rows,)) if cfg.qkv_bias else None
        return p.linear(x, matrix, bias=bias, add=add)

    def norm(x: Value, name: str, *, last: bool) -> Value:
        return _norm(p, cfg, f"{block}.{name}", x) if last == cfg.norms_last else x

    x = norm(h, "attn_norm", last=False)
    q = linear(x, "attn_q", q_size)
    k, v = linear(x, "attn_k", kv_size), linear(x, "attn_v", kv_size)
    a = p.attention(q, k, v, heads=cfg.heads, group=group, scale=cfg.head_dim**-0.5)
    h = norm(linear(a, "attn_output", cfg.hidden_size, add=h), "attn_norm", last=True)

    x = norm(h, "ffn_norm", last=False)
    g = p.activate(linear(x, "ffn_up", cfg.ffn_size), cfg.activation)
    return norm(linear(g, "ffn_down", cfg.hidden_size, add=h), "ffn_norm", last=True)


def _norm(p: ProgramBuilder, cfg: ModelConfig, name: str, x: Value) -> Value:
    if not cfg.norm_weights:
        return p.layer_norm(x, None, None, cfg.norm_eps)
    return layer_norm(p, cfg, name, x)
