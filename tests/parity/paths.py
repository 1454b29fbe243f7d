"""The ways Octavo computes a model's logits that parity is claimed for, each by a name.

Knows the options of LLM and the reference interpreter; not what they are compared with.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from octavo import LLM
from octavo.batch import Asked, FloatArray, Want, make_batch
from octavo.program.program import Program
from octavo.program.reference import ReferenceInterpreter

NATIVE: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "int8, kv bf16": {"activations": "int8", "kv_dtype": "bf16"},
        "int8, kv f32": {"activations": "int8", "kv_dtype": "f32"},
        "bf16, kv bf16": {"activations": "bf16", "kv_dtype": "bf16"},
        "bf16, kv f32": {"activations": "bf16", "kv_dtype": "f32"},
        "f32 weights, kv f32": {"weights": "f32", "kv_dtype": "f32"},
    }
)


def native(model: Path, name: str, context: int) -> LLM:
    """Compute logits by one of `NATIVE`; `llm.logits` is its path."""
    return LLM(model, context=context, **NATIVE[name])


def reference(program: Program, weights: Mapping[str, FloatArray], tokens: list[int]) -> FloatArray:
    """The reference interpreter in float32: logits after each token, (len(tokens), vocab)."""
    blocks = list(range(-(-len(tokens) // 32)))
    interpreter = ReferenceInterpreter(program, weights, num_blocks=len(blocks))
    wants = [Asked(Want.LOGITS)] * len(tokens)
    return interpreter.run(make_batch([(tokens, 0)], [[blocks]], range(len(tokens)), wants)).logits
