"""SmolLM2: float32 logits equal with `==`, whatever the batch, chunks, cache and threads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from octavo import LLM
from octavo.batch import Want
from octavo.engine.runner import Runner, make_batch

RNG = np.random.default_rng(5)
PROMPTS = [
    [int(t) for t in RNG.integers(0, 49152, length)]
    for length in (300, 1, 37, 64, 65, 256, 257, 2, 150)
]
BLOCKS = 12  # of 32 tokens, for each sequence


@pytest.fixture(scope="module")
def runners(smollm2_path: Path) -> dict[int, Runner]:
    return {
        threads: LLM(smollm2_path, threads=threads, context=4096, max_batch_tokens=1200)._runner
        for threads in (1, 2, 3)
    }


@pytest.fixture(scope="module")
def alone(runners: dict[int, Runner]) -> list[NDArray[np.float32]]:
    """The last row's logits of each prompt, computed whole, by itself, on one thread."""
    return [step(runners[1], [(prompt, 0)], [0])[0] for prompt in PROMPTS]


def step(
    runner: Runner, spans: list[tuple[list[int], int]], places: list[int]
) -> NDArray[np.float32]:
    """(len(spans), vocab): one step; each sequence in the blocks of its place."""
    tables = [list(range(p * BLOCKS, (p + 1) * BLOCKS)) for p in places]
    last = np.cumsum([len(tokens) for tokens, _ in spans]) - 1
    return runner.forward(make_batch(spans, tables, 1, last, [Want.LOGITS] * len(spans))).logits


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("count", range(1, 10))
def test_ragged_neighbours(
    runners: dict[int, Runner], alone: list[NDArray[np.float32]], count: int, threads: int
) -> None:
    chosen = [(i + count) % len(PROMPTS) for i in range(count)]
    together = step(runners[threads], [(PROMPTS[i], 0) for i in chosen], list(range(count)))
    for got, i in zip(together, chosen, strict=True):
        assert np.array_equal(got, alone[i])


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("cut", [1, 31, 32, 63, 64, 100, 255, 256, 257, 299])
def test_chunked_prefill(
    runners: dict[int, Runner], alone: list[NDArray[np.float32]], cut: int, threads: int
) -> None:
    prompt = PROMPTS[0]
    step(runners[threads], [(prompt[:cut], 0)], [3])
    assert np.array_equal(step(runners[threads], [(prompt[cut:], cut)], [3])[0], alone[0])


def test_with_the_cache_every_token_equals_the_run_without(runners: dict[int, Runner]) -> None:
    prompt = PROMPTS[4]
    for end in range(1, len(prompt) + 1):
        cached = step(runners[2], [(prompt[end - 1 : end], end - 1)], [0])
        assert np.array_equal(cached, step(runners[2], [(prompt[:end], 0)], [1]))


def test_a_decode_rides_along_with_a_prefill(
    runners: dict[int, Runner], alone: list[NDArray[np.float32]]
) -> None:
    decoding = PROMPTS[6]
    step(runners[2], [(decoding[:-1], 0)], [0])
    mixed = step(runners[2], [(decoding[-1:], len(decoding) - 1), (PROMPTS[5], 0)], [0, 1])
    assert np.array_equal(mixed[0], alone[6])
    assert np.array_equal(mixed[1], alone[5])
