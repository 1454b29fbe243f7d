"""One model from two kinds of file: what is loaded of each, to be held against the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from octavo.batch import FloatArray
from octavo.kernels import native
from octavo.weights.model_header import read_header
from octavo.weights.model_weights import load_weights, reference_weights
from tests.families.directories import config_of, golden_of
from tests.families.drawn import TOKENS, checkpoint
from tests.tiny import TinyModel, all_logits, make_runner

POOL = native.ThreadPool(2)


def drawn(variant: str) -> dict[str, FloatArray]:
    """All tensors of a variant, by transformers' names."""
    golden = golden_of(variant)
    return checkpoint(golden["shapes"], config_of(variant), golden["seed"])


def loaded(path: Path, *, weights: Any = "f32") -> TinyModel:
    header = read_header(path)
    program = header.program()
    specs = program.weights()
    packed = load_weights(header, specs, POOL, asked=weights)
    return TinyModel(program, packed, reference_weights(header, specs))


def logits(model: TinyModel, **options: Any) -> FloatArray:
    found: FloatArray = all_logits(make_runner(model, POOL, kv_dtype="f32", **options), TOKENS)
    return found
