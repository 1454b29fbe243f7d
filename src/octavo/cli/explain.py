"""`octavo explain`: what a token costs with and without the KV cache; nothing is run or timed."""

from __future__ import annotations

from collections.abc import Callable

from octavo.cli.command import Group
from octavo.cli.figures import columns, count, number, percent, size, wrapped
from octavo.cli.flags import (
    AsJson,
    Context,
    KVDtype,
    KVSinks,
    Model,
    Sinks,
    SlidingContext,
    planned_config,
)
from octavo.cli.loading import open_program
from octavo.cli.screen import Screen
from octavo.config import EngineConfig
from octavo.errors import counted
from octavo.model.config import ModelConfig
from octavo.planning.experts import active_bytes
from octavo.planning.explain import PARTS, TOTAL, Explanation, Parts, explain_token
from octavo.planning.memory import page_formats
from octavo.program.cost import FLOAT
from octavo.weights.file_table import of_files


def register(app: Group) -> None:
    app.add("explain", explain)


def explain(
    model: Model,
    *,
    context: Context = None,
    kv_dtype: KVDtype = "bf16",
    kv_sinks: KVSinks = None,
    sliding_context: SlidingContext = None,
    sinks: Sinks = None,
    json: AsJson = False,
) -> None:
    """Say what a token costs with and without the KV cache.

    Part by part, as counts of operations and bytes; nothing is run or timed.
    """
    screen = Screen(json)
    config = planned_config(
        kv_dtype, kv_sinks=kv_sinks, sliding_context=sliding_context, sinks=sinks
    )
    header, program, tokens = open_program(model, context, config)
    weights = header.weight_bytes(program.weights())
    formats = page_formats(program, config)
    found = explain_token(model, program, weights, context=tokens, formats=formats)
    active = active_bytes(program, weights), sum(weights.values())
    tables = [(weights[name], spec.shape[0]) for name, spec in of_files(program.weights()).items()]
    pieces = _pieces(found, header.config, active, tables, config)
    screen.say("\n".join(piece if "\n" in piece else wrapped(piece) for piece in pieces))
    screen.result(found.to_dict())


def _pieces(
    found: Explanation,
    cfg: ModelConfig,
    active: tuple[float, float],
    tables: list[tuple[float, int]],
    config: EngineConfig,
) -> list[str]:
    """Sentences, and tables of several lines. `active` are the bytes of weights that a token reads
    alone, and all; `tables` the bytes and rows of those that stay in the file."""
    many, one = found.between_blocks
    tokens, before = (counted(n, "token") for n in (found.context, found.context - 1))
    heads = f"{counted(cfg.heads, 'head')} and {counted(cfg.kv_heads, 'KV head')} of {cfg.head_dim}"
    if cfg.latent is not None:
        heads = f"{counted(cfg.heads, 'head')} of {cfg.head_dim} and one latent row of "
        heads += f"{cfg.latent.stored}"
    # one layer's three projections and output projection, of every token and of the new one
    many_flops, one_flops = (
        (side["qkv"].flops + side["output"].flops) / cfg.num_layers
        for side in (found.without, found.cached)
    )
    slides = []
    if config.sliding_context is not None:
        slides = [
            f"The context slides: in full layers a token sees {config.sliding_context:,} at most, "
            f"of them the first {config.sliding_sinks:,}."
        ]
    return [
        f"{found.model}: {counted(cfg.num_layers, 'layer')}, hidden {cfg.hidden_size:,}, "
        f"{heads}, FFN {cfg.ffn_size:,}, vocabulary {cfg.tokens:,}",
        *_experts(cfg, *active),
        *(
            f"Embeddings of layers: {size(nbytes)} stay in the file, of which a token reads "
            f"{size(nbytes / rows)}."
            for nbytes, rows in tables
        ),
        *_sharing(cfg),
        *slides,
        "",
        f"Decode: one new token that sees {tokens}, itself included. FLOPs:",
        _comparison(found, "flops", count),
        "",
        "Bytes read and written (weights and pages once a forward; activations float32):",
        _comparison(found, "bytes", size),
        "",
        f"Prefill: a prompt of {tokens}, per token of it. With the cache and without it the "
        f"work is the same; with it, the {size(found.kv_bytes_per_token)} of K and V of each "
        "token are kept.",
        _alone(found.prefill),
        "",
        "What the cache saves for one new token:",
        f"  Attention projections (Q, K, V, output): {number(found.saved('qkv'))} times less, "
        f"{count(many_flops)}FLOPs a layer become {count(one_flops)}FLOPs:",
        f"    K and V of the {before} before are read, not computed again.",
        f"  MLP: the same {number(found.saved('mlp'))} times less, "
        "because only the new token passes through it.",
        f"  Scores and their sums: {number(found.saved('attention'))} times less: "
        "one row of the triangle instead of all of it.",
        f"  Between blocks: s·h = {found.context:,} x {found.hidden:,} = {many:,} values "
        f"({size(many * FLOAT)}) become h = {one:,} ({size(one * FLOAT)}).",
        f"  The head runs for one row either way. In all {number(found.saved(TOTAL))} times "
        "fewer FLOPs.",
        f"What it costs: {size(found.kv_bytes_per_token)} a token, {size(found.kv_bytes)} at "
        f"{tokens}, all of it read for every new token.",
    ]


def _experts(cfg: ModelConfig, active: float, whole: float) -> list[str]:
    if cfg.mixture is None:
        return []
    each, layers = cfg.mixture, counted(sum(cfg.mixture.sparse), "layer")
    return [
        f"Experts: {each.used} of {each.experts} in {layers}. A token alone reads {size(active)} "
        f"of the {size(whole)} of weights; many together read up to all."
    ]


def _sharing(cfg: ModelConfig) -> list[str]:
    if cfg.uneven is None or not cfg.uneven.sharing:
        return []
    return [
        f"K and V: the last {counted(cfg.uneven.sharing, 'layer')} store none; they read what the "
        "last layers before them stored, which is kept once."
    ]


def _comparison(found: Explanation, field: str, show: Callable[[float], str]) -> str:
    sides = found.without, found.cached
    wholes = [getattr(side[TOTAL], field) for side in sides]
    rows = [["", "no cache", "share", "cache", "share", "no cache / cache"]]
    for part in (*PARTS, TOTAL):
        values = [getattr(side[part], field) for side in sides]
        cells = [[show(v), percent(v / whole)] for v, whole in zip(values, wholes, strict=True)]
        rows.append([part, *cells[0], *cells[1], number(values[0] / values[1])])
    return columns(rows)


def _alone(parts: Parts) -> str:
    whole = parts[TOTAL]
    rows = [["", "FLOPs", "share", "bytes", "share"]]
    for name, part in parts.items():
        flops_share, bytes_share = part.flops / whole.flops, part.bytes / whole.bytes
        rows.append(
            [name, count(part.flops), percent(flops_share), size(part.bytes), percent(bytes_share)]
        )
    return columns(rows)
