"""Decode that a grammar holds, over the same decode that nothing holds.

    python -m benchmarks.masks MODEL [--streams 1,16] [--rounds 6]

Both run in turns in one engine, on the same prompts; speed is that of the median step of those that
were one token of each stream, since others' turns on the machine make some of them long. Says the
median of the rounds, the least and the largest.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from statistics import median
from typing import Any

from octavo import LLM, RequestOptions, SamplingParams
from octavo.bench.workloads import random_prompt

DEPTH, TOKENS = 128, 96
# An answer that does not come to its end within the tokens.
PEOPLE: dict[str, Any] = {
    "type": "array",
    "minItems": TOKENS,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer"},
            "kind": {"enum": ["person", "animal"]},
            "is_here": {"type": "boolean"},
        },
        "required": ["name", "age", "kind", "is_here"],
        "additionalProperties": False,
    },
}
TEMPERATURES = {"greedy": 0.0, "drawn": 0.7}
GOALS = {1: 0.95, 16: 0.85}


def speed(
    llm: LLM, prompts: Sequence[Sequence[int]], params: SamplingParams, options: RequestOptions
) -> float:
    """Tokens a second of all streams together, while all run."""
    before = len(llm.records)
    llm.generate(prompts, params, options)
    streams = len(prompts)
    steps = [
        each.seconds
        for each in llm.records[before:]
        if each.num_requests == each.computed_tokens == streams
    ]
    assert len(steps) > TOKENS // 2, "most steps are one token of each stream"
    return streams / median(steps)


def ratios(llm: LLM, streams: int, temperature: float, rounds: int) -> list[float]:
    """Speed with masks over speed without, of each round."""
    held = RequestOptions(constraint=llm.grammar(json=PEOPLE))
    found = []
    for i in range(rounds + 1):
        seeds = range(i * streams, (i + 1) * streams)
        prompts = [random_prompt(llm.program.vocab_size, DEPTH, seed) for seed in seeds]
        options = {True: held, False: RequestOptions()}
        speeds = {
            masked: speed(
                llm, prompts,
                SamplingParams(
                    max_tokens=TOKENS, temperature=temperature, seed=i, ignore_eos=not masked
                ),
                options[masked],
            )
            for masked in ((True, False) if i % 2 else (False, True))
        }  # fmt: skip
        found.append(speeds[True] / speeds[False])
    return found[1:]  # the first warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--streams", default="1,16")
    parser.add_argument("--rounds", type=int, default=6)
    given = parser.parse_args()
    llm = LLM(given.model, context=1024)
    for streams in map(int, given.streams.split(",")):
        for name, temperature in TEMPERATURES.items():
            found = ratios(llm, streams, temperature, given.rounds)
            goal = f"; goal >= {GOALS[streams]:.0%}" if streams in GOALS else ""
            print(
                f"{streams} streams, {name}: {median(found):.1%} of the speed without masks "
                f"({min(found):.1%} to {max(found):.1%}, n={len(found)}){goal}",
                flush=True,
            )


if __name__ == "__main__":
    main()
