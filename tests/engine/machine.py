"""Simulated machines, and a StepBudget that runs steps on them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from octavo.engine.step_budget import StepBudget
from octavo.kernels import KV_FORMATS
from octavo.model import llama
from octavo.model.config import ModelConfig
from octavo.program.kv_bytes import PageFormats
from octavo.program.program import Program

# Shapes of a 135M model: 212.3e6 matmul FLOPs a row, 69,930 attention FLOPs a pair.
SMALL = llama.build(
    ModelConfig(
        architecture="llama", num_layers=30, hidden_size=576, ffn_size=1536, heads=9, kv_heads=3,
        head_dim=64, vocab_size=49152, context=8192, norm_eps=1e-5, rope_base=1e5, rotary_dim=64,
        rope_style="half", tied_head=True, qkv_bias=False,
    )
)  # fmt: skip
ROW = 212.9e6  # with norms, rope and SwiGLU
HEAD = 2 * 49152 * 576
PAIR = 30 * 9 * 259 * 2.0  # attention counts twice
BF16 = KV_FORMATS["bf16"]
KV = 30 * 3 * 128 * 2  # bytes of a token in bf16
WEIGHTS = 85e6
READ = WEIGHTS * 18  # a step's reading of them, in units
TARGET = 0.1

Spans = list[tuple[int, int]]


def budget(
    program: Program = SMALL, *, weight_bytes: float = WEIGHTS, **changes: Any
) -> StepBudget:
    options = {"target_seconds": TARGET, "max_rows": 2048, **changes}
    return StepBudget(
        program, formats=PageFormats.everywhere(BF16), weight_bytes=weight_bytes, **options
    )


def measured(**changes: Any) -> StepBudget:
    """A budget that saw one step, 128 rows in 50 ms, and begins another."""
    it = budget(**changes)
    it.observe([(0, 128)], 0.050)
    it.open()
    return it


def decode(it: StepBudget, count: int, context: int) -> None:
    """Begin a step that has so many decodes already."""
    it.open()
    for _ in range(count):
        it.take(context - 1, context)


def longest(it: StepBudget, decodes: int = 0, context: int = 1) -> int:
    """The rows of a new prompt that fit a step beside so many decodes."""
    decode(it, decodes, context)
    return it.fit(0, 10**6)


def pairs(begin: int, end: int) -> int:
    return sum(range(begin + 1, end + 1))


@dataclass
class Machine:
    """True time of a step: chunks by arithmetic, decodes by their reads. No term knows the units
    of the budget."""

    row: float = 0.4e-3  # seconds
    pair: float = 0.25e-6
    fixed: float = 3e-3
    kv_token: float = 0.8e-6  # a decode's read of one token's K and V
    noise: float = 0.0
    random: random.Random = field(default_factory=lambda: random.Random(7))
    last: float = 0.0  # seconds of the last step

    def seconds(self, spans: Spans) -> float:
        time = self.fixed
        for begin, end in spans:
            time += self.row * (end - begin)
            time += self.kv_token * end if end - begin == 1 else self.pair * pairs(begin, end)
        self.last = time * self.random.uniform(1 - self.noise, 1 + self.noise)
        return self.last


def run_step(
    it: StepBudget, machine: Machine, begin: int, end: int, decodes: Sequence[tuple[int, int]] = ()
) -> int:
    """One step with a prompt that has rows [begin, end) left; where it got to."""
    it.open()
    for each in decodes:
        it.take(*each)
    got = it.fit(begin, end)
    it.take(begin, got)
    spans = [*decodes, (begin, got)]
    it.observe(spans, machine.seconds(spans))
    return got
