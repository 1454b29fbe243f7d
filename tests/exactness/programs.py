"""Tiny programs of one to three layer groups: all tokens or windows, of several shapes."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.model import llama
from octavo.model.config import ModelConfig
from octavo.program.builder import ProgramBuilder
from octavo.program.ops import KVSpec, Program, Value, WeightSpec

_WIDTH = 64


@dataclass(frozen=True, slots=True)
class Grouped:
    """Attention alone, its layers of the groups in turns."""

    groups: tuple[KVSpec, ...]
    num_layers: int
    vocab_size: int
    queries: int = 2  # heads of queries to each head of keys
    softcap: float = 0.0


Shape = ModelConfig | Grouped


def build(shape: Shape) -> Program:
    return grouped(shape) if isinstance(shape, Grouped) else llama.build(shape)


def windowed(window: int) -> KVSpec:
    return KVSpec(1, 32, 32, window=window)


def grouped(shape: Grouped) -> Program:
    p = ProgramBuilder(rope_frequencies=[10000.0 ** (-i / 8) for i in range(8)])
    groups = [p.kv_group(spec) for spec in shape.groups]
    h = p.embed(WeightSpec("table", (shape.vocab_size, _WIDTH)))

    def linear(x: Value, name: str, rows: int, add: Value | None = None) -> Value:
        return p.linear(x, WeightSpec(name, (rows, x.width)), add=add)

    for i in range(shape.num_layers):
        group = i % len(groups)
        spec = shape.groups[group]
        heads = spec.kv_heads * shape.queries
        x = p.rms_norm(h, WeightSpec(f"{i}.norm", (_WIDTH,)), 1e-5)
        q = p.rope(linear(x, f"{i}.q", heads * spec.k_dim), heads=heads, style="half")
        k = linear(x, f"{i}.k", spec.kv_heads * spec.k_dim)
        k = p.rope(k, heads=spec.kv_heads, style="half")
        v = linear(x, f"{i}.v", spec.kv_heads * spec.v_dim)
        a = p.attention(q, k, v, heads=heads, group=groups[group], scale=0.5, softcap=shape.softcap)
        h = linear(a, f"{i}.o", _WIDTH, add=h)
    x = p.rms_norm(h, WeightSpec("norm", (_WIDTH,)), 1e-5)
    return p.logits(x, WeightSpec("head", (shape.vocab_size, _WIDTH)))
