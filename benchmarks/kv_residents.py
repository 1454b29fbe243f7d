"""Sequences that one KV budget holds at once, K and V in each dtype, beside what their bytes say.

    python -m benchmarks.kv_residents smollm2 [--tokens 512 --tokens 2048] [--kv-memory 1G]

Requests go through the engine, its scheduler, its cache and the model's own layouts of pages; the
forward computes nothing. A sequence is a prompt and its last 64 tokens, and the most that run while
others wait are counted. The bytes are those of a whole sequence, by the cost interpreter.
"""

from __future__ import annotations

import argparse
from typing import Any
from unittest.mock import patch

from benchmarks.kv_speed import DTYPES
from octavo import LLM, SamplingParams
from octavo.batch import Batch, StepOutput
from octavo.bench.workloads import random_prompt
from octavo.kernels import native
from octavo.planning.memory import page_formats
from octavo.program.kv_bytes import pages_bytes

ANSWER = 64  # tokens
OFFERED = 1.5  # requests for each that the budget holds by its bytes


class ComputesNothing:
    """Stands in for the native program: every answer is token 0."""

    def __init__(self, *parts: object) -> None:
        pass

    def run(self, batch: Batch, out: StepOutput) -> None:
        out.argmax[:] = 0
        out.log_sum_exp[:] = 0


def sequence_bytes(llm: LLM, tokens: int) -> float:
    formats = page_formats(llm.program, llm.config)
    layers = zip(llm.program.layers_of_group, llm.program.groups, strict=True)
    return sum(count * pages_bytes(spec, formats, 0, tokens) for count, spec in layers)


def residents(llm: LLM, tokens: int, requests: int) -> int:
    """The most requests that ran while others waited."""
    vocabulary = llm.model_config.tokens
    prompts = [random_prompt(vocabulary, tokens - ANSWER, seed) for seed in range(requests)]
    llm.generate(prompts, SamplingParams(max_tokens=ANSWER, temperature=0, ignore_eos=True))
    return max(record.num_requests for record in llm.records if record.num_waiting)


def measure(model: str, tokens: int, memory: str) -> None:
    options: dict[str, Any] = {
        "context": tokens, "kv_memory": memory, "max_num_seqs": 1024, "prefix_cache": False,
        "step_ms": None, "max_batch_tokens": 8192,
    }  # fmt: skip
    first: tuple[int, float] | None = None
    for dtype in DTYPES:
        with patch.object(native, "Program", ComputesNothing):
            llm = LLM(model, kv_dtype=dtype, **options)
        each = sequence_bytes(llm, tokens)
        found = residents(llm, tokens, int(OFFERED * (llm.config.kv_memory or 0) / each))
        first = first or (found, each)
        grown, says = found / first[0], first[1] / each
        print(
            f"{tokens:6,} tokens, {dtype:14} {found:4} at once, {grown:.2f} times bf16's; "
            f"the bytes say {says:.2f} ({grown / says - 1:+.1%})",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Sequences that one KV budget holds at once.")
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, action="append", help="of a sequence")
    parser.add_argument("--kv-memory", default="1G")
    asked = parser.parse_args()
    for tokens in asked.tokens or [512, 2048]:
        measure(asked.model, tokens, asked.kv_memory)


if __name__ == "__main__":
    main()
