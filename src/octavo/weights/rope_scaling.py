"""RoPE scalings as what they do to a table: factors that divide its frequencies, and an amplitude.

Comes in: the numbers of a scaling, from whichever kind of file. Knows no field and no key.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """As `ModelConfig` has it."""

    rope_scale: float = 1.0  # divides positions
    rope_factors: tuple[float, ...] = ()
    rope_amplitude: float = 1.0
    long_rope_factors: tuple[float, ...] = ()
    original_context: int = 0


def llama3_factors(
    base: float, rotary_dim: int, *, factor: float, original: int, low: float, high: float
) -> tuple[float, ...]:
    """Llama 3.1's: waves that are in the original context less than `low` times are slowed by
    `factor`, those more than `high` times not, between them by a part."""
    factors = []
    for pair in range(rotary_dim // 2):
        waves = original * base ** (-2 * pair / rotary_dim) / (2 * math.pi)
        part = min(max((waves - low) / (high - low), 0), 1)
        factors.append(1 / (part + (1 - part) / factor))
    return tuple(factors)


def yarn_factors(
    base: float,
    rotary_dim: int,
    *,
    factor: float,
    original: int,
    fast: float,
    slow: float,
    truncate: bool,
) -> tuple[float, ...]:
    """YaRN's   (Peng et al. 2023): pairs that turn more than `fast` times in the original context
    stay, those that turn less than `slow` times are slowed by `factor`, between them by a part."""

    def pair_that_turns(times: float) -> float:
        turns = original / (times * 2 * math.pi)
        turns = min(max(turns, sys.float_info.min), sys.float_info.max)  # of impossible numbers too
        return rotary_dim * math.log(turns) / (2 * math.log(base))

    low, high = pair_that_turns(fast), pair_that_turns(slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotary_dim - 1)
    if low == high:
        high += 0.001
    factors = []
    for pair in range(rotary_dim // 2):
        slowed = min(max((pair - low) / (high - low), 0), 1)
        factors.append(1 / (slowed / factor + (1 - slowed)))
    return tuple(factors)


def yarn_amplitude(factor: float, mscale: float = 1.0, mscale_all_dim: float = 0.0) -> float:
    """YaRN's, of cos and sin; the two are DeepSeek's, which divides what it also does elsewhere."""

    def grown(by: float) -> float:
        return 0.1 * by * math.log(factor) + 1 if factor > 1 else 1.0

    return grown(mscale) / grown(mscale_all_dim)


def longrope_amplitude(factor: float, original: int) -> float:
    """LongRoPE's   (Ding et al. 2024)"""
    return math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
