"""Print how far Octavo's logits are from those of Hugging Face transformers on a text.

    python -m tests.parity.report TEXT [MODEL] [--tokens N] [--window N] [--path NAME ...]

Their side is a Llama or a Gemma 3 in float32 on the CPU with the same dequantised weights. The text
is cut into windows without overlap, each a sequence of its own. MODEL: a library name, a GGUF file
or a directory.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from octavo.environment import home
from octavo.kernels import default_isa
from octavo.model.registry import build_program
from octavo.weights import library
from octavo.weights.model_header import read_header
from octavo.weights.model_weights import reference_weights
from tests.parity import hf_gemma3, hf_llama, paths
from tests.parity.figures import Figures, compare, join

_REFERENCE_ROWS = 384  # the reference interpreter is slow: only the first rows of the first window


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("model", nargs="?", default="smollm2")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--path", action="append", choices=paths.NATIVE, help="default: all")
    args = parser.parse_args()
    model = library.find(args.model, home=home())
    text = args.text.read_text(encoding="utf-8")
    figures = measure(model, text, args.path or list(paths.NATIVE), args.tokens, args.window)
    print(f"isa {default_isa()}, {args.tokens} tokens in windows of {args.window}")
    for name, windows in figures.items():
        show(name, windows)


def measure(
    model: Path, text: str, names: list[str], count: int, window: int
) -> dict[str, list[Figures]]:
    """Each path's figures, a window each; the reference interpreter's too."""
    llms = {name: paths.native(model, name, window) for name in names}
    header = read_header(model)
    program = build_program(header.config)
    weights = reference_weights(header, program.weights())
    build = hf_gemma3.build if header.config.architecture == "gemma3" else hf_llama.build
    theirs = build(header.config, weights)
    tokens = next(iter(llms.values())).tokenizer.encode(text)[:count]
    assert len(tokens) == count, f"the text has only {len(tokens)} tokens"
    figures: dict[str, list[Figures]] = {name: [] for name in [*llms, "reference f32"]}
    for begin in range(0, count, window):
        span = tokens[begin : begin + window]
        want = hf_llama.logits(theirs, span)
        for name, llm in llms.items():
            figures[name].append(compare(llm.logits(span), want, span))
        if begin == 0:
            first = span[:_REFERENCE_ROWS]
            got = paths.reference(program, weights, first)
            figures["reference f32"].append(compare(got, want[: len(first)], first))
    return figures


def show(name: str, windows: list[Figures]) -> None:
    f = join(windows)
    low, worst = np.percentile(f.cosine, 1), f.cosine.min()
    print(f"{name}:  rows {len(f.cosine)}")
    print(f"  cosine            mean {f.cosine.mean():.6f}  1 % {low:.6f}  worst {worst:.6f}")
    below, centred = (int((c < 0.999).sum()) for c in (f.cosine, f.centred))
    print(f"  rows below 0.999  {below}, centred {centred}")
    low, worst = np.percentile(f.centred, 1), f.centred.min()
    print(f"  cosine, centred   mean {f.centred.mean():.6f}  1 % {low:.6f}  worst {worst:.6f}")
    print(f"  error / deviation mean {f.error.mean():.3g}  worst {f.error.max():.3g}")
    print(f"  same best token   {f.same_best.mean():.4f}")
    print(f"  perplexity        {f.perplexity:.4f} ({f.perplexity_change:+.4%})")
    print(f"  log p off by      {f.loss_error:.4f} (rms)")
    longest = max(len(w.cosine) for w in windows)
    for begin in [0, 1, 2, *(2**i for i in range(2, 20))]:
        end = max(begin + 1, 2 * begin)
        if begin < longest:
            part = join([w.rows(begin, end) for w in windows])
            print(
                f"    positions {begin:5} to {min(end, longest) - 1:5}: "
                f"centred {part.centred.mean():.6f} worst {part.centred.min():.6f}  "
                f"error worst {part.error.max():.3g}"
            )


if __name__ == "__main__":
    main()
