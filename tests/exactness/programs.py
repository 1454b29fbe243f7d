"""Tiny programs of one to three layer groups: all tokens or windows, of several shapes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from octavo.model import llama
from octavo.model.config import ModelConfig
from octavo.program.builder import ProgramBuilder
from octavo.program.ops import KVSpec, Value, WeightSpec
from octavo.program.program import Program
from octavo.program.slide import slide, why_not_sliding
from octavo.program.slopes import Slopes, alibi_slopes

_WIDTH = 64
_PADDING = 5  # rows of a varied head that are no tokens
_POSITIONS = 2048


@dataclass(frozen=True, slots=True)
class Grouped:
    """Attention alone, its layers of the groups in turns."""

    groups: tuple[KVSpec, ...]
    num_layers: int
    vocab_size: int
    queries: int = 2  # heads of queries to each head of keys
    softcap: float = 0.0
    turned: bool = True  # q and k, by RoPE
    varied: bool = False  # other norms, positions and scales, an MLP, a head with padding
    experts: int = 0  # in an MLP of each layer, of which a row meets two
    sink_logits: bool = False
    sliding: tuple[int, int] | None = None  # where it may: the context, and how much of it stays
    sharing: int = 0  # layers after those, which store nothing: they read their group's last one
    from_file: bool = False  # layers add columns of a table whose rows stay in a file
    slopes: Literal["", "plain", "rounded"] = ""

    @property
    def head_rows(self) -> int:
        """Rows of the head: those from `vocab_size` on are no tokens."""
        return self.vocab_size + _PADDING * self.varied


@dataclass(frozen=True, slots=True)
class Latent:
    """Attention over one narrow row of a token that all heads share, and by matrices of their own
    read and write in it   (DeepSeek-V2)."""

    heads: int
    num_layers: int
    vocab_size: int
    latent: int = 64  # values of a token's row, and of what attention makes of it
    turned: int = 16  # beside them, by RoPE
    plain: int = 32  # of a head's q, before it is one for the latent
    values: int = 32  # that a head's result becomes
    narrow: int = 0  # q is made of so many; 0: of the row
    v_in_k: bool = True  # else V is stored by itself, as if it were no part of K

    @property
    def kv(self) -> KVSpec:
        return KVSpec(1, self.latent + self.turned, self.latent, v_in_k=self.v_in_k)


Shape = ModelConfig | Grouped | Latent


def build(shape: Shape) -> Program:
    if isinstance(shape, Latent):
        return latent(shape)
    if not isinstance(shape, Grouped):
        return llama.build(shape)
    program = grouped(shape)
    if shape.sliding is None or why_not_sliding(program) is not None:
        return program
    return slide(program, *shape.sliding)


def windowed(window: int) -> KVSpec:
    return KVSpec(1, 32, 32, window=window)


def mixed(p: ProgramBuilder, x: Value, experts: int, prefix: str, add: Value) -> Value:
    """Two of the experts, and what they add."""
    logits = p.linear(x, WeightSpec(f"{prefix}router", (experts, x.width)))
    route = p.route(logits, used=2, score="softmax", renormalise=True)
    into = WeightSpec(f"{prefix}gates", (experts * 32, x.width))
    out = WeightSpec(f"{prefix}downs", (experts * x.width, 32))
    ups = replace(into, name=f"{prefix}ups")
    gate_bias, up_bias, down_bias = (
        WeightSpec(f"{spec.name}.bias", spec.shape[:1]) for spec in (into, ups, out)
    )
    return p.experts(
        x, route, into, ups, out, experts=experts, activation="clamped_glu", add=add,
        biases=(gate_bias, up_bias, down_bias),
    )  # fmt: skip


def _slopes(shape: Grouped, heads: int) -> Slopes | None:
    return Slopes(alibi_slopes(heads), shape.slopes == "rounded") if shape.slopes else None


def grouped(shape: Grouped) -> Program:
    p = ProgramBuilder(rope_frequencies=[10000.0 ** (-i / 8) for i in range(8)])
    groups = [p.kv_group(spec) for spec in shape.groups]
    learned = WeightSpec("positions", (_POSITIONS, _WIDTH)) if shape.varied else None
    h = p.embed(
        WeightSpec("table", (shape.head_rows, _WIDTH)), positions=learned, offset=2 * shape.varied
    )

    layers = shape.num_layers + shape.sharing
    table = WeightSpec("in file", (shape.head_rows, 32 * layers), source="file")
    of_layers = p.embed(table) if shape.from_file else None

    def norm(x: Value, name: str) -> Value:
        weight = WeightSpec(name, (_WIDTH,))
        if not shape.varied:
            return p.rms_norm(x, weight, 1e-5)
        return p.layer_norm(x, weight, WeightSpec(f"{name}.bias", (_WIDTH,)), 1e-5)

    def linear(x: Value, name: str, rows: int, add: Value | None = None) -> Value:
        scale = 0.5 if shape.varied and add is not None else 1.0
        return p.linear(x, WeightSpec(name, (rows, x.width)), scale=scale, add=add)

    for i in range(layers):
        group = i % len(groups)
        spec = shape.groups[group]
        heads = spec.kv_heads * shape.queries
        x = norm(h, f"{i}.norm")
        q = linear(x, f"{i}.q", heads * spec.k_dim)
        if shape.turned:
            q = p.rope(q, heads=heads, style="half")
        q = p.scale_by_position(q, 0.25, 24) if shape.varied else q
        k = v = layer = None
        if i < shape.num_layers:
            k = linear(x, f"{i}.k", spec.kv_heads * spec.k_dim)
            k = p.rope(k, heads=spec.kv_heads, style="half") if shape.turned else k
            v = linear(x, f"{i}.v", spec.kv_heads * spec.v_dim)
        else:
            layer = len(range(group, shape.num_layers, len(groups))) - 1
        sinks = WeightSpec(f"{i}.sinks", (heads,)) if shape.sink_logits else None
        a = p.attention(
            q, k, v, heads=heads, group=groups[group], scale=0.5, softcap=shape.softcap,
            sink_logits=sinks, slopes=_slopes(shape, heads), layer=layer,
        )  # fmt: skip
        h = linear(a, f"{i}.o", _WIDTH, add=h)
        if shape.varied:
            up = p.activate(linear(norm(h, f"{i}.up_norm"), f"{i}.up", 96), "gelu")
            h = linear(up, f"{i}.down", _WIDTH, add=h)
        if of_layers is not None:
            part = p.scale(
                p.slice(of_layers, 32 * i, 32), 0.5, factor=WeightSpec(f"{i}.factor", (1,))
            )
            h = linear(part, f"{i}.of_layer", _WIDTH, add=h)
        if shape.experts:
            h = mixed(p, norm(h, f"{i}.mixed_norm"), shape.experts, f"{i}.", h)
    x, weight = norm(h, "norm"), WeightSpec("head", (shape.head_rows, _WIDTH))
    if not shape.varied:
        return p.logits(x, weight)
    bias = WeightSpec("head.bias", (shape.head_rows,))
    return p.logits(x, weight, bias=bias, scale=0.75, softcap=4.0, tokens=shape.vocab_size)


def latent(shape: Latent) -> Program:
    p = ProgramBuilder(rope_frequencies=[10000.0 ** (-i / 8) for i in range(shape.turned // 2)])
    group, heads = p.kv_group(shape.kv), shape.heads
    h = p.embed(WeightSpec("table", (shape.vocab_size, _WIDTH)))

    def norm(x: Value, name: str) -> Value:
        return p.rms_norm(x, WeightSpec(name, (x.width,)), 1e-5)

    for i in range(shape.num_layers):

        def linear(x: Value, name: str, rows: int, add: Value | None = None) -> Value:
            return p.linear(x, WeightSpec(f"{i}.{name}", (rows, x.width)), add=add)  # noqa: B023

        def by_head(x: Value, name: str, rows: int) -> Value:
            spec = WeightSpec(f"{i}.{name}", (heads * rows, x.width // heads))  # noqa: B023
            return p.head_linear(x, spec, heads=heads)

        x = norm(h, f"{i}.norm")
        of_q = norm(linear(x, "q_a", shape.narrow), f"{i}.q_norm") if shape.narrow else x
        q = by_head(linear(of_q, "q", heads * shape.plain), "k_b", shape.latent)
        turned = p.rope(linear(of_q, "q_turned", heads * shape.turned), heads=heads, style="half")
        row = norm(linear(x, "kv", shape.latent), f"{i}.kv_norm")
        k = p.join(row, p.rope(linear(x, "k_turned", shape.turned), heads=1, style="half"), heads=1)
        q = p.join(q, turned, heads=heads)
        v = None if shape.v_in_k else row
        a = p.attention(q, k, v, heads=heads, group=group, scale=0.125)
        h = linear(by_head(a, "v_b", shape.values), "o", _WIDTH, add=h)
    return p.logits(norm(h, "norm"), WeightSpec("head", (shape.vocab_size, _WIDTH)))
