"""Speeds of one model with K and V in each dtype, beside bf16, in turns.

    python -m benchmarks.kv_speed smollm2 [--rounds 7] [--streams 8 --depth 2048]

One engine for each dtype, all in one process; prompts are random tokens, the same for all. Decode
is of streams behind so many tokens, whose K and V a first round left in the cache; prefill is of
one prompt that no cache has. Prints medians over the rounds, and of each round's ratio to bf16 the
median, the least and the most.
"""

from __future__ import annotations

import argparse
from statistics import median

from octavo import LLM, SamplingParams
from octavo.bench.workloads import random_prompt

DTYPES = ("bf16", "int8", "k=int8,v=int4", "int4")
NEW = 32  # tokens of one timing of decode


def prompts(llm: LLM, count: int, tokens: int, seed: int) -> list[list[int]]:
    seeds = range(seed * count, (seed + 1) * count)
    return [random_prompt(llm.model_config.tokens, tokens, each) for each in seeds]


def decode(llm: LLM, streams: int, depth: int) -> float:
    """Tokens a second of all streams."""
    params = SamplingParams(max_tokens=NEW, temperature=0, ignore_eos=True)
    found = llm.generate(prompts(llm, streams, depth, 1), params)
    return 1e3 * streams / median(output.metrics.tpot_ms or 0.0 for output in found)


def prefill(llm: LLM, tokens: int, seed: int) -> float:
    """Tokens a second of one prompt."""
    (output,) = llm.generate(prompts(llm, 1, tokens, seed), SamplingParams(max_tokens=1))
    return output.metrics.prefill_tps or 0.0


def show(what: str, speeds: dict[str, list[float]]) -> None:
    for dtype, each in speeds.items():
        ratios = [a / b for a, b in zip(each, speeds["bf16"], strict=True)]
        print(
            f"{what:24} {dtype:14} {median(each):8,.0f} tok/s, "
            f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Speeds with K and V in each dtype, in turns.")
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--depth", type=int, default=2048)
    parser.add_argument("--kv-memory", default="2G", help="of each engine")
    asked = parser.parse_args()
    streams, depth, rounds = asked.streams, asked.depth, range(asked.rounds)
    options = {"context": depth + NEW, "kv_memory": asked.kv_memory, "max_num_seqs": streams}
    llms = {dtype: LLM(asked.model, kv_dtype=dtype, **options) for dtype in DTYPES}
    for llm in llms.values():
        decode(llm, streams, depth)
    made: dict[str, list[float]] = {dtype: [] for dtype in llms}
    for _ in rounds:
        for dtype, llm in llms.items():
            made[dtype].append(decode(llm, streams, depth))
    show(f"{streams} after {depth:,}", made)
    read: dict[str, list[float]] = {dtype: [] for dtype in llms}
    for i in rounds:
        for dtype, llm in llms.items():
            read[dtype].append(prefill(llm, depth, 2 + i))
    show(f"a prompt of {depth:,}", read)


if __name__ == "__main__":
    main()
