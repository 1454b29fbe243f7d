"""Explanation: what a token costs with and without the KV cache, part by part.

Comes in: a model's program, the bytes of its weights, the formats of K and V, a context. Goes out:
counts of the cost interpreter (`program.cost`), summed by the parts that people ask about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from octavo.program.classes import OpClass
from octavo.program.cost import (
    FLOAT,
    OpCost,
    Work,
    by_class,
    cost,
    decode,
    prefill,
)
from octavo.program.kv_bytes import PageFormats, kv_bytes_by_group, pages_bytes
from octavo.program.program import Program

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


@dataclass(frozen=True, slots=True)
class PartCost:
    """What one part of the model costs for one new token."""

    flops: float
    weight_bytes: float
    kv_bytes: float
    activation_bytes: float

    @property
    def bytes(self) -> float:
        return self.weight_bytes + self.kv_bytes + self.activation_bytes


Parts = Mapping[str, PartCost]  # of each part, and of TOTAL


@dataclass(frozen=True, slots=True)
class Explanation:
    model: str
    context: int
    hidden: int  # values of a token between two blocks
    kv_bytes_per_token: float
    kv_bytes: float  # that the token reads: of windowed layers no more than their window
    without: Parts  # decode without the cache
    cached: Parts  # and with it
    prefill: Parts  # with it and without it

    @property
    def between_blocks(self) -> tuple[int, int]:
        """Values that one block hands to the next: without the cache s·h, with it h."""
        return self.context * self.hidden, self.hidden

    def saved(self, part: str) -> float:
        return self.without[part].flops / self.cached[part].flops

    def to_dict(self) -> dict[str, object]:
        many, one = self.between_blocks
        return {
            "model": self.model,
            "context": self.context,
            "kv_bytes_per_token": self.kv_bytes_per_token,
            "kv_bytes": self.kv_bytes,
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
                "without_cache": {"values": many, "bytes": many * FLOAT},
                "with_cache": {"values": one, "bytes": one * FLOAT},
            },
        }


def explain_token(
    model: str,
    program: Program,
    weight_bytes: Mapping[str, float],
    *,
    context: int,
    formats: PageFormats,
) -> Explanation:
    """Count what one new token costs that sees `context` tokens, itself included."""

    def parts(work: Work, tokens: int) -> Parts:
        costs = by_class(cost(program, work, weight_bytes=weight_bytes, formats=formats))
        each = {
            part: _per_token([costs[name] for name in names], tokens)
            for part, names in PARTS.items()
        }
        return {**each, TOTAL: _per_token(list(costs.values()), tokens)}

    by_group = kv_bytes_by_group(program, formats)
    layers = zip(program.layers_of_group, program.groups, strict=True)
    kv_bytes = sum(
        n * pages_bytes(spec, formats, max(0, context - (spec.most_seen or context)), context)
        for n, spec in layers
    )
    return Explanation(
        model, context, program.hidden_size, sum(by_group), kv_bytes,
        without=parts(decode(context, cache=False), 1),
        cached=parts(decode(context, cache=True), 1),
        prefill=parts(prefill(context), context),
    )  # fmt: skip


def _per_token(costs: list[OpCost], tokens: int) -> PartCost:
    return PartCost(
        flops=sum(each.flops for each in costs) / tokens,
        weight_bytes=sum(each.weight_bytes for each in costs) / tokens,
        kv_bytes=sum(each.kv_read_bytes + each.kv_write_bytes for each in costs) / tokens,
        activation_bytes=sum(each.activation_bytes for each in costs) / tokens,
    )


def _shares(parts: Parts) -> dict[str, dict[str, float]]:
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
