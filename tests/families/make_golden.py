"""Write tests/families/golden: what transformers says of the tiny models of each family.

    python -m tests.families.make_golden [VARIANT ...]

Every number is theirs, in float32 on the CPU: of the class that a config names, loaded from the
directory that the tests load. Weights are drawn anew until no answer hangs on a rounding. Needs
torch and transformers.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import safe_open

from octavo.batch import FloatArray
from tests.families.directories import VARIANTS, config_of, golden_path, write_directory
from tests.families.drawn import ANSWER, PROMPTS, ROWS, TOKENS
from tests.weights.hf.written import write_json

_LEAST_GAP = 1e-3  # of the best logit to the next, to the largest of the row
# Of the last expert's logit that is chosen to the first's that is not: in rows that are compared,
# and in those of answers, which only must be the same.
_LEAST_ROUTER_GAP, _LEAST_IN_ANSWERS = 1e-2, 1e-3
_SEEDS = 300


def main() -> None:
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)  # tiny models wait for their threads
    for variant in sys.argv[1:] or VARIANTS:
        write_golden(variant)


def write_golden(variant: str) -> None:
    """Raises if no seed has answers that are sure."""
    with tempfile.TemporaryDirectory() as folder:
        shapes = _shapes(variant, Path(folder) / "saved")
        for seed in range(_SEEDS):
            path = write_directory(Path(folder) / f"{seed}", variant, shapes, seed)
            model = _load(path, variant)
            if not _chooses_surely(model, TOKENS, _LEAST_ROUTER_GAP):
                continue
            answers = [_greedy(model, prompt) for prompt in PROMPTS]
            texts = [p + a for p, a in zip(PROMPTS, answers, strict=True) if a is not None]
            are_sure = [_chooses_surely(model, each, _LEAST_IN_ANSWERS) for each in texts]
            if len(texts) == len(PROMPTS) and all(are_sure):
                break
        else:
            raise SystemExit(f"{variant}: no seed has answers that are sure")
        logits = _logits(model, TOKENS)
    assert np.isfinite(logits).all()
    golden = {
        "made_with": {"torch": torch.__version__, "transformers": transformers.__version__},
        "seed": seed,
        "shapes": shapes,
        "rows": {str(row): [float(f"{v:.6g}") for v in logits[row]] for row in ROWS},
        "continuations": answers,
    }
    parts = (f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in golden.items())
    golden_path(variant).write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="ascii")
    print(f"{variant}: seed {seed}")


def _class(variant: str) -> Any:
    return getattr(transformers, config_of(variant)["architectures"][0])


def _shapes(variant: str, path: Path) -> dict[str, list[int]]:
    """Of all tensors, by name, as transformers saves the model of this config."""
    path.mkdir()
    write_json(path / "config.json", config_of(variant))
    config = transformers.AutoConfig.from_pretrained(path)
    _class(variant)(config).save_pretrained(path)
    with safe_open(path / "model.safetensors", "numpy") as file:
        return {name: list(file.get_slice(name).get_shape()) for name in sorted(file.keys())}


def _load(path: Path, variant: str) -> Any:
    # Falcon's eager attention adds ALiBi's biases twice: the mask that it gets has them, too.
    attention = "sdpa" if config_of(variant).get("alibi") else "eager"
    model, info = _class(variant).from_pretrained(
        path, dtype=torch.float32, attn_implementation=attention, output_loading_info=True
    )
    assert not any(info.values()), f"{variant}: {info}"
    return model.eval()


def _logits(model: Any, tokens: Sequence[int]) -> FloatArray:
    """After every token: (len(tokens), rows of the head). One pass without a cache."""
    with torch.inference_mode():
        out: FloatArray = model(torch.tensor([list(tokens)]), use_cache=False).logits[0].numpy()
    return out


def _chooses_surely(model: Any, tokens: Sequence[int], least: float) -> bool:
    """Whether no rounding could give a row another expert; true where there are none."""
    used = getattr(model.config, "num_experts_per_tok", 0)
    if not used:
        return True
    with torch.inference_mode():
        out = model(torch.tensor([list(tokens)]), use_cache=False, output_router_logits=True)
    for logits in out.router_logits:  # (rows, experts) of a layer
        scores = logits.numpy()
        if getattr(model.config, "topk_method", "") == "group_limited_greedy":
            by_group = scores.reshape(len(scores), model.config.n_group, -1)
            best, kept = by_group.max(axis=2), model.config.topk_group
            if _gap(best, kept) < least:
                return False
            lowest = np.sort(best)[:, -kept, None, None]
            scores = np.where(best[:, :, None] < lowest, -np.inf, by_group).reshape(scores.shape)
        if used < scores.shape[1] and _gap(scores, used) < least:
            return False
    return True


def _gap(scores: FloatArray, used: int) -> float:
    """Of the last that a row uses to the first that it does not, in the nearest row."""
    best = np.sort(scores)[:, ::-1]
    return float((best[:, used - 1] - best[:, used]).min())


def _greedy(model: Any, prompt: Sequence[int]) -> list[int] | None:
    """The likeliest next tokens, each from a pass over all before it; None if one is not sure."""
    text = list(prompt)
    for _ in range(ANSWER):
        row = _logits(model, text)[-1]
        best, gap = int(row[:131].argmax()), -np.diff(np.sort(row[:131])[:-3:-1])[0]
        if gap < _LEAST_GAP * np.abs(row).max():
            return None
        text.append(best)
    return text[len(prompt) :]


if __name__ == "__main__":
    main()
