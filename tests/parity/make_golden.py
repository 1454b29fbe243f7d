"""Write tests/golden/smollm2.json: what Hugging Face transformers says of a few short texts.

    python -m tests.parity.make_golden [MODEL]

Every number in it is theirs, from LlamaForCausalLM in float32 on the CPU with our dequantised
weights (test_parity.py checks those against transformers' own reading of the GGUF). The versions
used are in the file. Make it anew only when a text or the model changes: it is meant to stay.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

from octavo.environment import home
from octavo.model.registry import build_program
from octavo.tokenizer import Tokenizer
from octavo.weights import library
from octavo.weights.model_header import read_header
from octavo.weights.model_weights import reference_weights
from tests.parity import hf_llama

_FILE = Path(__file__).parents[1] / "golden" / "smollm2.json"
_TEXTS = {
    "english": "The lighthouse keeper counted the ships each evening, and wrote their names in a "
    "long grey book. On the third of March there were none, so he wrote about the fog instead.",
    "code": 'def mean(values):\n    """The average of a list of numbers."""\n    total = 0\n'
    "    for value in values:\n        total += value\n    return total / len(values)\n",
    "japanese": "朝の駅は静かで、猫が一匹だけベンチに座っていた。",
}
_QUESTION = "What is the capital of France?"
_MOST_TOKENS = 64
_CONTINUATION = 16
_TOP = 8


def main() -> None:
    path = library.find(sys.argv[1] if len(sys.argv) > 1 else "smollm2", home=home())
    header = read_header(path)
    weights = reference_weights(header, build_program(header.config).weights())
    theirs = hf_llama.build(header.config, weights)
    tokenizer = Tokenizer.from_spec(header.tokenizer_spec())
    prompts = {name: tokenizer.encode(text)[:_MOST_TOKENS] for name, text in _TEXTS.items()}
    prompts["chat"] = tokenizer.encode_chat([{"role": "user", "content": _QUESTION}])
    golden = {
        "made_with": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "machine": platform.machine(),
        },
        "model": path.name,
        "texts": {name: _golden(theirs, tokens) for name, tokens in prompts.items()},
    }
    lines = json.dumps(golden, indent=None, ensure_ascii=True).replace(
        '"made_with"', '\n"made_with"'
    )
    _FILE.write_text(lines.replace('{"tokens"', '\n{"tokens"') + "\n", encoding="ascii")


def _golden(theirs: transformers.LlamaForCausalLM, prompt: list[int]) -> dict[str, object]:
    """Rows are of the prompt and the continuation, but the last token, which nothing follows."""
    continuation = hf_llama.greedy(theirs, prompt, _CONTINUATION)
    logits = hf_llama.logits(theirs, prompt + continuation[:-1]).astype(np.float64)
    peak = logits.max(axis=1)
    lse = peak + np.log(np.exp(logits - peak[:, None]).sum(axis=1))
    top = np.argsort(-logits, axis=1, kind="stable")[:, :_TOP]
    return {
        "tokens": prompt,
        "continuation": continuation,
        "deviation": _short(logits.std(axis=1)),  # of each row, the unit of the tests' tolerances
        "log_sum_exp": _short(lse),
        "top_ids": top.tolist(),
        "top_logits": [_short(row) for row in np.take_along_axis(logits, top, axis=1)],
    }


def _short(values: np.ndarray) -> list[float]:
    """Seven digits: what float32 holds."""
    return [float(f"{v:.7g}") for v in values]


if __name__ == "__main__":
    main()
