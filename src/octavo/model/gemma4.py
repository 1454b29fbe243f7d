"""The Gemma 4 family, its text part   (Gemma Team 2026).

Gemma 3 with larger heads in full layers, most of whose pairs are not rotated; V normed, scores not
scaled. The last layers attend to what earlier ones stored. Each layer has an embedding of its own,
gathered from the model's file, which a gate lets in; a learned number scales its result.
"""

from __future__ import annotations

from octavo.model.config import ModelConfig
from octavo.model.uneven import Uneven
from octavo.program.builder import ProgramBuilder
from octavo.program.ops import KVSpec, Value, WeightSpec
from octavo.program.program import Program


def build(cfg: ModelConfig) -> Program:
    assert cfg.uneven is not None
    p = ProgramBuilder()
    p.rope_table("full", cfg.rope_frequencies(), cfg.rope_amplitude)
    if cfg.windowed:
        p.rope_table("windowed", cfg.local_rope_frequencies())
    groups = _groups(p, cfg, cfg.uneven)
    embedding = WeightSpec("token_embd.weight", (cfg.vocab_size, cfg.hidden_size))

    h = p.scale(p.embed(embedding), cfg.hidden_size**0.5)
    of_layers = _of_layers(p, cfg, cfg.uneven.layer_embedding, h)
    stored: dict[int, int] = {}  # group -> its last layer that was stored
    for i in range(cfg.num_layers):
        h = _layer(p, cfg, cfg.uneven, groups[i], stored, i, h, of_layers)
    h = p.rms_norm(h, WeightSpec("output_norm.weight", (cfg.hidden_size,)), cfg.norm_eps)
    return p.logits(h, cfg.head_weight(embedding), softcap=cfg.logit_softcap)


def _groups(p: ProgramBuilder, cfg: ModelConfig, uneven: Uneven) -> list[int]:
    """The layer group of each layer."""
    full = windowed = -1
    if not all(cfg.windowed or (False,)):
        full = p.kv_group(KVSpec(cfg.kv_heads, cfg.head_dim, cfg.head_dim))
    if any(cfg.windowed):
        dim = uneven.windowed_head_dim
        windowed = p.kv_group(KVSpec(uneven.windowed_kv_heads, dim, dim, cfg.window))
    return [full if cfg.is_full(i) else windowed for i in range(cfg.num_layers)]


def _of_layers(p: ProgramBuilder, cfg: ModelConfig, width: int, h: Value) -> Value | None:
    """Make what each layer is given of a token, one layer's columns after the other's."""
    if not width:
        return None
    table = WeightSpec(
        "per_layer_token_embd.weight", (cfg.vocab_size, cfg.num_layers * width), source="file"
    )
    rows = p.scale(p.embed(table), width**0.5)
    matrix = WeightSpec("per_layer_model_proj.weight", (rows.width, cfg.hidden_size))
    x = p.linear(h, matrix, scale=cfg.hidden_size**-0.5)
    norm = WeightSpec("per_layer_proj_norm.weight", (width,))
    x = p.rms_norm(x, norm, cfg.norm_eps, heads=cfg.num_layers)
    return p.scale(p.add(x, rows), 2**-0.5)


def _layer(
    p: ProgramBuilder, cfg: ModelConfig, uneven: Uneven, group: int, stored: dict[int, int], i: int,
    h: Value, of_layers: Value | None,
) -> Value:  # fmt: skip
    is_full, shares = cfg.is_full(i), i >= cfg.num_layers - uneven.sharing
    dim = cfg.head_dim if is_full else uneven.windowed_head_dim
    kv_heads = cfg.kv_heads if is_full else uneven.windowed_kv_heads

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
    q = rotated(linear(x, "attn_q", cfg.heads * dim), "attn_q_norm", cfg.heads)
    if shares:
        a = p.attention(q, heads=cfg.heads, group=group, scale=cfg.score_scale, layer=stored[group])
    else:
        k = linear(x, "attn_k", kv_heads * dim)
        v = k
        if not (is_full and uneven.values_are_keys):
            v = linear(x, "attn_v", kv_heads * dim)
        v = p.rms_norm(v, None, cfg.norm_eps, heads=kv_heads)
        k = rotated(k, "attn_k_norm", kv_heads)
        a = p.attention(q, k, v, heads=cfg.heads, group=group, scale=cfg.score_scale)
        stored[group] = stored.get(group, -1) + 1
    h = p.add(norm(linear(a, "attn_output", cfg.hidden_size), "post_attention_norm"), h)

    x = norm(h, "ffn_norm")
    ffn = cfg.ffn_size * (uneven.ffn_factor_of_sharing if shares else 1)
    g = p.gated(linear(x, "ffn_gate", ffn), linear(x, "ffn_up", ffn), "gelu_tanh")
    h = p.add(norm(linear(g, "ffn_down", cfg.hidden_size), "post_ffw_norm"), h)

    if of_layers is not None:
        width = uneven.layer_embedding
        mine = p.slice(of_layers, i * width, width)
        g = p.gated(linear(h, "inp_gate", width), mine, "gelu_tanh")
        h = p.add(norm(linear(g, "proj", cfg.hidden_size), "post_norm"), h)
    return p.scale(h, factor=WeightSpec(f"blk.{i}.layer_output_scale.weight", (1,)))
