"""`octavo explain`: what a token costs with and without the KV cache, by the cost interpreter.

All numbers are counts from the model's program (`program.cost`); nothing is run or timed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import typer

from octavo.cli.figures import columns, count, number, percent, size, wrapped
from octavo.cli.flags import AsJson, Context, KVDtype, Model, parse_kv_bits
from octavo.cli.loading import open_program
from octavo.cli.screen import Screen
from octavo.errors import counted
from octavo.program.cost import (
    FLOAT,
    OpClass,
    OpCost,
    Work,
    by_class,
    cost,
    decode,
    kv_bytes_per_token,
    prefill,
)
from octavo.program.ops import Program
from octavo.weights.model_header import ModelHeader

# What people ask about, and the classes of the interpreter that make it up.
PARTS: Mapping[str, tuple[OpClass, ...]] = {
    "qkv": ("qkv",),
    "attention": ("attention",),
    "output": ("output",),
    "mlp": ("mlp",),
    "head": ("head",),
    "embed, norms": ("embed", "norm"),
}
TOTAL = "total"


def register(app: typer.Typer) -> None:
    app.command("explain")(explain)


def explain(
    model: Model,
    *,
    context: Context = None,
    kv_dtype: KVDtype = "bf16",
    json: AsJson = False,
) -> None:
    """Say what a token costs with and without the KV cache.

    Part by part, as counts of operations and bytes; nothing is run or timed.
    """
    screen = Screen(json)
    bits = parse_kv_bits(kv_dtype)
    header, program, tokens = open_program(model, context)
    explanation = Explanation(model, header, program, tokens, bits)
    screen.say(explanation.text())
    screen.result(explanation.to_dict())


@dataclass(frozen=True, slots=True)
class PartCost:
    """Of one new token."""

    flops: float
    weight_bytes: float
    kv_bytes: float
    activation_bytes: float

    @property
    def bytes(self) -> float:
        return self.weight_bytes + self.kv_bytes + self.activation_bytes


class Explanation:
    def __init__(
        self,
        model: str,
        header: ModelHeader,
        program: Program,
        context: int,
        kv_bits: tuple[int, int],
    ) -> None:
        self.model = model
        self.config = header.config
        self.context = context
        self.kv_bits = kv_bits
        self.program = program
        self._weight_bytes = header.weight_bytes(self.program.weights())
        self.without = self._parts(decode(context, cache=False), 1)
        self.cached = self._parts(decode(context, cache=True), 1)
        self.prefill = self._parts(prefill(context), context)

    @property
    def kv_per_token(self) -> float:
        return kv_bytes_per_token(self.program, *self.kv_bits)

    @property
    def between_blocks(self) -> tuple[int, int]:
        """Values that one block hands to the next: without the cache s·h, with it h."""
        hidden = self.program.hidden_size
        return self.context * hidden, hidden

    def saved(self, part: str) -> float:
        return self.without[part].flops / self.cached[part].flops

    def to_dict(self) -> dict[str, object]:
        per_block = self.between_blocks
        return {
            "model": self.model,
            "context": self.context,
            "kv_bytes_per_token": self.kv_per_token,
            "kv_bytes": self.kv_per_token * self.context,
            "decode": {
                "without_cache": _shares(self.without),
                "with_cache": _shares(self.cached),
                "saved": {part: self.saved(part) for part in (*PARTS, TOTAL)},
            },
            "prefill": {
                "without_cache": _shares(self.prefill),
                "with_cache": _shares(self.prefill),
                "saved": dict.fromkeys((*PARTS, TOTAL), 1.0),
            },
            "between_blocks": {
                "without_cache": {"values": per_block[0], "bytes": per_block[0] * FLOAT},
                "with_cache": {"values": per_block[1], "bytes": per_block[1] * FLOAT},
            },
        }

    def text(self) -> str:
        cfg, tokens = self.config, counted(self.context, "token")
        heads = f"{counted(cfg.heads, 'head')} and {counted(cfg.kv_heads, 'KV head')}"
        pieces = [
            f"{self.model}: {counted(cfg.num_layers, 'layer')}, hidden {cfg.hidden_size:,}, "
            f"{heads} of {cfg.head_dim}, FFN {cfg.ffn_size:,}, vocabulary {cfg.vocab_size:,}",
            "",
            f"Decode: one new token that sees {tokens}, itself included. FLOPs:",
            self._comparison("flops", count),
            "",
            "Bytes read and written (weights and pages once a forward; activations float32):",
            self._comparison("bytes", size),
            "",
            f"Prefill: a prompt of {tokens}, per token of it. With the cache and without it the "
            f"work is the same; with it, the {size(self.kv_per_token)} of K and V of each token "
            "are kept.",
            _alone(self.prefill),
            "",
            *self._answers(),
        ]
        return "\n".join(piece if "\n" in piece else wrapped(piece) for piece in pieces)

    def _answers(self) -> list[str]:
        many, one = self.between_blocks
        tokens, before = (counted(n, "token") for n in (self.context, self.context - 1))
        layers = self.config.num_layers
        # one layer's three projections and output projection, of every token and of the new one
        many_flops = (self.without["qkv"].flops + self.without["output"].flops) / layers
        one_flops = (self.cached["qkv"].flops + self.cached["output"].flops) / layers
        hidden = self.program.hidden_size
        return [
            "What the cache saves for one new token:",
            f"  Attention projections (Q, K, V, output): {number(self.saved('qkv'))} times less, "
            f"{count(many_flops)}FLOPs a layer become {count(one_flops)}FLOPs:",
            f"    K and V of the {before} before are read, not computed again.",
            f"  MLP: the same {number(self.saved('mlp'))} times less, "
            "because only the new token passes through it.",
            f"  Scores and their sums: {number(self.saved('attention'))} times less: "
            "one row of the triangle instead of all of it.",
            f"  Between blocks: s·h = {self.context:,} x {hidden:,} = {many:,} values "
            f"({size(many * FLOAT)}) become h = {one:,} ({size(one * FLOAT)}).",
            f"  The head runs for one row either way. In all {number(self.saved(TOTAL))} times "
            "fewer FLOPs.",
            f"What it costs: {size(self.kv_per_token)} a token, "
            f"{size(self.kv_per_token * self.context)} at {tokens}, all of it read "
            "for every new token.",
        ]

    def _comparison(self, field: str, show: Callable[[float], str]) -> str:
        rows = [["", "no cache", "share", "cache", "share", "no cache / cache"]]
        for part in (*PARTS, TOTAL):
            before, after = (getattr(side[part], field) for side in (self.without, self.cached))
            whole = [getattr(side[TOTAL], field) for side in (self.without, self.cached)]
            rows.append(
                [part, show(before), percent(before / whole[0]), show(after),
                 percent(after / whole[1]), number(before / after)]
            )  # fmt: skip
        return columns(rows)

    def _parts(self, work: Work, tokens: int) -> dict[str, PartCost]:
        k_bits, v_bits = self.kv_bits
        costs = by_class(
            cost(
                self.program,
                work,
                weight_bytes=self._weight_bytes,
                k_bits=k_bits,
                v_bits=v_bits,
            )
        )
        parts = {
            part: _per_token([costs[name] for name in names], tokens)
            for part, names in PARTS.items()
        }
        return {**parts, TOTAL: _per_token(list(costs.values()), tokens)}


def _per_token(costs: list[OpCost], tokens: int) -> PartCost:
    return PartCost(
        flops=sum(each.flops for each in costs) / tokens,
        weight_bytes=sum(each.weight_bytes for each in costs) / tokens,
        kv_bytes=sum(each.kv_read_bytes + each.kv_write_bytes for each in costs) / tokens,
        activation_bytes=sum(each.activation_bytes for each in costs) / tokens,
    )


def _shares(parts: dict[str, PartCost]) -> dict[str, dict[str, float]]:
    whole = parts[TOTAL]
    return {
        name: {
            "flops": part.flops,
            "flops_share": part.flops / whole.flops,
            "bytes": part.bytes,
            "bytes_share": part.bytes / whole.bytes,
            "weight_bytes": part.weight_bytes,
            "kv_bytes": part.kv_bytes,
            "activation_bytes": part.activation_bytes,
        }
        for name, part in parts.items()
    }


def _alone(parts: dict[str, PartCost]) -> str:
    whole = parts[TOTAL]
    rows = [["", "FLOPs", "share", "bytes", "share"]]
    for name, part in parts.items():
        flops_share, bytes_share = part.flops / whole.flops, part.bytes / whole.bytes
        rows.append(
            [name, count(part.flops), percent(flops_share), size(part.bytes), percent(bytes_share)]
        )
    return columns(rows)
