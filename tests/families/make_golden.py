"""Write tests/families/golden.json: what transformers says of the tiny models of each family.

    python -m tests.families.make_golden

Every number in it is theirs, in float32 on the CPU. Needs torch and transformers.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import transformers

from tests.families.checkpoints import CONFIGS, PROMPTS, TOKENS, weights
from tests.parity import hf_gemma3, hf_llama

_BUILDERS = {"gemma3": hf_gemma3.build}
_ROWS = range(0, len(TOKENS), 9)
_CONTINUATION = 64


def main() -> None:
    models = {}
    for name, config in CONFIGS.items():
        theirs = _BUILDERS[config.architecture](config, weights(config))
        logits = hf_llama.logits(theirs, TOKENS)
        models[name] = {
            "continuations": [hf_llama.greedy(theirs, p, _CONTINUATION) for p in PROMPTS],
            "rows": {str(row): [float(f"{v:.6g}") for v in logits[row]] for row in _ROWS},
        }
    golden = {
        "made_with": {"torch": torch.__version__, "transformers": transformers.__version__},
        "models": models,
    }
    text = json.dumps(golden, separators=(",", ":")).replace('"rows"', '\n"rows"')
    Path(__file__).with_name("golden.json").write_text(text + "\n", encoding="ascii")
    assert np.isfinite(logits).all()


if __name__ == "__main__":
    main()
