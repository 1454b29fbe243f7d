"""SmolLM2's logits against Hugging Face transformers itself. Runs where torch and transformers are.

One window of a fixture's texts; `python -m tests.parity.report` gives the figures over a long text.
Cosines are of logits less their mean. As they are, some rows have a large common part that
rounding moves and a softmax never sees: their cosine is lower, to 0.9967 in bf16 over 8,192 tokens.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="parity needs torch: install a CPU build by hand")
pytest.importorskip("transformers", reason="parity needs transformers: pip install octavo[parity]")

import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from octavo.model.registry import build_program
from octavo.weights.model_header import read_header
from octavo.weights.model_weights import reference_weights
from tests.parity import hf_llama, paths
from tests.parity.figures import compare

_GOLDEN = Path(__file__).parents[1] / "golden" / "smollm2.json"


@pytest.fixture(scope="module")
def theirs(smollm2_path: Path) -> LlamaForCausalLM:
    header = read_header(smollm2_path)
    weights = reference_weights(header, build_program(header.config).weights())
    return hf_llama.build(header.config, weights)


@pytest.fixture(scope="module")
def tokens() -> list[int]:
    texts = json.loads(_GOLDEN.read_text(encoding="ascii"))["texts"]
    return [t for name in sorted(texts) for t in texts[name]["tokens"]]


@pytest.mark.filterwarnings("ignore")  # theirs
def test_transformers_reads_the_same_weights_from_the_file(
    theirs: LlamaForCausalLM, smollm2_path: Path
) -> None:
    """An independent reader: dequantised values, q's and k's row order, tied head, rotary base."""
    pytest.importorskip("accelerate", reason="transformers reads GGUF with accelerate: install it")
    read = AutoModelForCausalLM.from_pretrained(
        str(smollm2_path.parent), gguf_file=smollm2_path.name, dtype=torch.float32
    )
    ours, others = theirs.state_dict(), read.state_dict()
    assert ours.keys() == others.keys()
    assert [name for name in ours if not torch.equal(ours[name], others[name])] == []
    assert torch.equal(theirs.model.rotary_emb.inv_freq, read.model.rotary_emb.inv_freq)
    assert theirs.config.rms_norm_eps == read.config.rms_norm_eps


@pytest.mark.parametrize(
    ("path", "mean", "lowest_hundredth", "same_best"),
    [
        ("int8, kv bf16", 0.999, 0.99, 0.95),  # 0.96 over 8k tokens; of 155 rows 0.95 is 1 sigma
        ("bf16, kv bf16", 0.9999, 0.999, 0.97),
        ("f32 weights, kv f32", 1 - 1e-7, 1 - 1e-7, 1.0),
    ],
)
def test_logits(
    path: str,
    mean: float,
    lowest_hundredth: float,
    same_best: float,
    theirs: LlamaForCausalLM,
    tokens: list[int],
    smollm2_path: Path,
) -> None:
    llm = paths.native(smollm2_path, path, context=len(tokens))
    found = compare(llm.logits(tokens), hf_llama.logits(theirs, tokens), tokens)
    assert found.centred.mean() >= mean
    assert np.percentile(found.centred, 1) >= lowest_hundredth
    assert found.same_best.mean() >= same_best
