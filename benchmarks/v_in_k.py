"""Attention over DeepSeek-V2's latent rows, with V read from K's pages and with V stored twice.

    python -m benchmarks.v_in_k [--threads 1] [--heads 16] [--kv-dtype bf16] [--rounds 7]

Rows of 576 and 512 values in four layers, in one process, the two by turns. Times are those of the
attention ops of a forward, a layer; of short ones the median of as many as 30 ms hold. Prints
medians over the rounds, and of each round's ratio the median, the least and the most. `OCTAVO_ISA`
forces a lower level.
"""

from __future__ import annotations

import argparse
from statistics import median

import numpy as np

from octavo.batch import Asked, Batch, Want, make_batch
from octavo.engine.runner import Runner
from octavo.kernels import native
from octavo.program.builder import ProgramBuilder
from octavo.program.ops import KVSpec, WeightSpec
from octavo.program.program import Program
from octavo.weights.ggml_type import GGMLType
from tests.tiny import make_runner, random_model

LAYERS, WIDTH, VOCAB, BLOCK = 4, 32, 64, 32
BLOCKS = 8 * 8192 // BLOCK + 8
SECONDS = 0.03
CASES = {  # sequences, tokens before, rows of each
    "1 row after 2,047": (1, 2047, 1),
    "1 row after 8,191": (1, 8191, 1),
    "8 sequences, 1 row after 2,047": (8, 2047, 1),
    "8 sequences, 1 row after 8,191": (8, 8191, 1),
    "64 rows after 2,048": (1, 2048, 64),
    "512 rows": (1, 0, 512),
    "512 rows after 4,096": (1, 4096, 512),
}


def attention_alone(heads: int, *, v_in_k: bool) -> Program:
    """Layers of attention with next to nothing around them."""
    p = ProgramBuilder()
    group = p.kv_group(KVSpec(1, 576, 512, v_in_k=v_in_k))
    h = p.embed(WeightSpec("table", (VOCAB, WIDTH)))
    for i in range(LAYERS):
        q = p.linear(h, WeightSpec(f"{i}.q", (heads * 576, WIDTH)))
        k = p.linear(h, WeightSpec(f"{i}.k", (576, WIDTH)))
        v = None if v_in_k else p.linear(h, WeightSpec(f"{i}.v", (512, WIDTH)))
        a = p.attention(q, k, v, heads=heads, group=group, scale=0.05)
        h = p.linear(a, WeightSpec(f"{i}.o", (WIDTH, heads * 512)), add=h)
    return p.logits(h, WeightSpec("head", (VOCAB, WIDTH)))


def filled_runner(program: Program, pool: native.ThreadPool, kv_dtype: str) -> Runner:
    """A runner whose pages hold numbers, the same everywhere."""
    model = random_model(program, pool, type=GGMLType.F32)
    runner = make_runner(
        model, pool, kv_dtype=kv_dtype, num_blocks=BLOCKS, max_rows=512, profile=True
    )
    for pages in runner.pages:
        pages[:] = 0x3C
    return runner


def batch_of(sequences: int, past: int, rows: int) -> Batch:
    rng = np.random.default_rng(0)
    blocks, ids = -(-(past + rows) // BLOCK), rng.permutation(BLOCKS).tolist()
    tables = [[ids[i * blocks : (i + 1) * blocks] for i in range(sequences)]]
    spans = [(rng.integers(0, VOCAB, rows).tolist(), past) for _ in range(sequences)]
    return make_batch(spans, tables, [0], [Asked(Want.LOGITS)])


def microseconds(runner: Runner, batch: Batch) -> float:
    """Return what the attention of one layer takes."""
    times = zip(runner.run(batch).op_ns, runner.op_names, strict=True)
    return sum(float(ns) for ns, name in times if name.startswith("Attend")) / LAYERS / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description="V read from K's pages, and stored twice.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--kv-dtype", default="bf16", choices=["bf16", "f32"])
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    pool = native.ThreadPool(asked.threads)
    once, twice = (
        filled_runner(attention_alone(asked.heads, v_in_k=v_in_k), pool, asked.kv_dtype)
        for v_in_k in (True, False)
    )
    for name, shape in CASES.items():
        batch = batch_of(*shape)
        times: tuple[list[float], list[float]] = [], []
        repeats = max(1, int(SECONDS * 1e6 / LAYERS / microseconds(once, batch)))
        microseconds(twice, batch)
        for _ in range(asked.rounds):
            for found, runner in zip(times, (once, twice), strict=True):
                found.append(median(microseconds(runner, batch) for _ in range(repeats)))
        ratios = [b / a for a, b in zip(*times, strict=True)]
        print(
            f"{name:32} once {median(times[0]):10,.0f} us, twice {median(times[1]):10,.0f} us: "
            f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) of its speed",
            flush=True,
        )


if __name__ == "__main__":
    main()
