"""The RoPE scaling that a GGUF file asks for, as llama.cpp understands its keys and tensors.

Knows keys below `rope.scaling.` and three tensors of factors. A factor without a type is linear.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from octavo.errors import ModelFormatError
from octavo.weights.gguf_metadata import Metadata
from octavo.weights.gguf_uneven import ARCHITECTURE as UNEVEN
from octavo.weights.gguf_uneven import NO_TURN
from octavo.weights.rope_scaling import RopeScaling, yarn_amplitude, yarn_factors

PLAIN, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
# Trained with bounds between pairs that are no whole numbers: no key says so, and llama.cpp rounds.
_UNTRUNCATED = frozenset({"gpt-oss"})
# Their scores grow with the stretched positions, and cos and sin do not (gguf_latent).
_GROWN_SCORES = frozenset({"deepseek2"})
_LONGEST, _MOST_DIM = 2**32, 2**16
FACTORS = (PLAIN, LONG, SHORT)  # tensors that are read into the config


def rope_scaling(
    keys: Metadata,
    arch: str,
    factors: Mapping[str, tuple[float, ...]],
    *,
    base: float,
    rotary_dim: int,
    context: int,
) -> tuple[RopeScaling, int]:
    """What the keys and the tensors `factors` ask for, and the context up to which it is right."""
    prefix = f"{arch}.rope.scaling."
    kind = keys.text(f"{prefix}type", default="linear")
    old = keys.real(f"{arch}.rope.scale_linear", default=0.0)
    factor = keys.real(f"{prefix}factor", default=old)
    factor = 1.0 if kind == "none" or factor == 0 else factor  # 0 is none too
    original = keys.whole(f"{prefix}original_context_length", default=0) or context
    amplitude = keys.real(f"{prefix}attn_factor", default=1.0)
    if kind not in ("none", "linear", "yarn", "longrope"):
        keys.refuse(f"{prefix}type is {kind!r}: none, linear, yarn and longrope are supported")
    if kind == "yarn":
        if factors:
            keys.refuse(f"{prefix}type is 'yarn', and there is a tensor {min(factors)!r}")
        _check_above_0(keys, f"{prefix}factor", factor)
        _check_above_0(keys, f"{prefix}original_context_length", original)
        if original > _LONGEST:
            raise keys.wrong(f"{prefix}original_context_length", f"at most {_LONGEST}")
        truncate = arch not in _UNTRUNCATED
        slowed, grown = _yarn(keys, prefix, base, rotary_dim, factor, original, truncate)
        if arch in _GROWN_SCORES and keys.real(f"{prefix}yarn_log_multiplier", default=0.0):
            grown = 1.0
        longest = max(context, int(original * min(factor, 2**16)))
        return RopeScaling(rope_factors=slowed, rope_amplitude=amplitude * grown), longest
    if LONG in factors or SHORT in factors:
        if missing := next((name for name in (LONG, SHORT) if name not in factors), ""):
            raise ModelFormatError(f"tensor {missing!r} is missing: expected both lists of factors")
        return RopeScaling(factor, factors[SHORT], amplitude, factors[LONG], original), context
    if kind == "longrope":
        raise ModelFormatError(f"tensor {LONG!r} is missing, which longrope needs")
    if PLAIN not in factors and arch == UNEVEN:
        raise ModelFormatError(f"tensor {PLAIN!r} is missing: expected which pairs turn")
    plain = tuple(math.inf if each >= NO_TURN else each for each in factors.get(PLAIN, ()))
    return RopeScaling(factor, plain, amplitude), context


def _yarn(
    keys: Metadata,
    prefix: str,
    base: float,
    rotary_dim: int,
    factor: float,
    original: int,
    truncate: bool,
) -> tuple[tuple[float, ...], float]:
    """Factors and amplitude; `yarn_log_multiplier` is what transformers calls mscale_all_dim."""
    if not 1 < base < math.inf:
        raise ModelFormatError(f"rope.freq_base is {base:g}: expected more than 1 with yarn")
    if rotary_dim > _MOST_DIM:  # before a list is made of so many
        raise ModelFormatError(
            f"rope.dimension_count is {rotary_dim}: expected at most {_MOST_DIM}"
        )
    fast = keys.real(f"{prefix}yarn_beta_fast", default=32.0)
    slow = keys.real(f"{prefix}yarn_beta_slow", default=1.0)
    all_dim = keys.real(f"{prefix}yarn_log_multiplier", default=0.0)
    _check_above_0(keys, f"{prefix}yarn_beta_fast", fast)
    _check_above_0(keys, f"{prefix}yarn_beta_slow", slow)
    if all_dim:
        _check_above_0(keys, f"{prefix}yarn_log_multiplier", all_dim)
    factors = yarn_factors(
        base, rotary_dim, factor=factor, original=original, fast=fast, slow=slow, truncate=truncate
    )
    grown = yarn_amplitude(factor, 1.0, all_dim)
    said = keys.real(f"{prefix}yarn_attn_factor", default=1.0)  # llama.cpp passes over it
    if said != 1 and not math.isclose(said, grown, rel_tol=1e-6):
        keys.refuse(f"{prefix}yarn_attn_factor is {said:.6g}: only {grown:.6g} is supported here")
    return factors, grown


def _check_above_0(keys: Metadata, key: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise keys.wrong(key, "a number above 0")
