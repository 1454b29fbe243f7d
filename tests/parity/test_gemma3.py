"""gemma3-270m's logits against Hugging Face transformers itself, over two of its windows.

Runs where torch, transformers and the model are. Bounds are a little beyond what is seen.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="parity needs torch: install a CPU build by hand")
pytest.importorskip("transformers", reason="parity needs transformers: pip install octavo[parity]")

from octavo.batch import FloatArray
from octavo.model.registry import build_program
from octavo.tokenizer import Tokenizer
from octavo.weights.model_header import ModelHeader, read_header
from octavo.weights.model_weights import reference_weights
from tests.parity import hf_gemma3, hf_llama, paths
from tests.parity.figures import compare

_TEXT = Path(__file__).parents[2] / "docs" / "architecture.md"
_LENGTH = 1100  # tokens; a window has 512


@pytest.fixture(scope="module")
def header(gemma3_path: Path) -> ModelHeader:
    return read_header(gemma3_path)


@pytest.fixture(scope="module")
def tokens(header: ModelHeader) -> list[int]:
    tokenizer = Tokenizer.from_spec(header.tokenizer_spec())
    return tokenizer.encode(_TEXT.read_text(encoding="utf-8"))[:_LENGTH]


@pytest.fixture(scope="module")
def theirs(header: ModelHeader, tokens: list[int]) -> FloatArray:
    weights = reference_weights(header, build_program(header.config).weights())
    return hf_llama.logits(hf_gemma3.build(header.config, weights), tokens)


@pytest.mark.parametrize(
    ("path", "mean", "worst", "same_best"),
    [("f32 weights, kv f32", 0.99999, 0.99999, 0.999), ("int8, kv bf16", 0.999, 0.985, 0.95)],
)
def test_logits(
    path: str,
    mean: float,
    worst: float,
    same_best: float,
    header: ModelHeader,
    theirs: FloatArray,
    tokens: list[int],
) -> None:
    llm = paths.native(header.path, path, context=len(tokens))
    found = compare(llm.logits(tokens), theirs, tokens)
    assert found.cosine.mean() >= mean
    assert np.min(found.cosine) >= worst
    assert found.same_best.mean() >= same_best
    assert abs(found.perplexity_change) < 0.005
