"""SmolLM2: float32 logits equal with `==`, whatever the batch, chunks, cache, forks and threads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from octavo import LLM
from octavo.batch import Want
from octavo.engine.engine import Engine
from octavo.engine.runner import Runner, make_batch
from octavo.request import Request, RequestOptions
from octavo.sampling_params import SamplingParams
from tests.exactness.alone import Row, best

RNG = np.random.default_rng(5)
PROMPTS = [
    [int(t) for t in RNG.integers(0, 49152, length)]
    for length in (300, 1, 37, 64, 65, 256, 257, 2, 150)
]
BLOCKS = 12  # of 32 tokens, for each branch


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
    """(len(spans), vocab): one step; each branch in the blocks of its place."""
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


@pytest.fixture(scope="module")
def engine(smollm2_path: Path) -> Engine:
    """With 17 blocks of 32 tokens."""
    block_bytes = 30 * 2 * 3 * 64 * 2 * 32  # layers, K and V, heads, width, bf16, tokens
    return LLM(smollm2_path, threads=2, context=512, kv_memory=17 * block_bytes)._engine


def ask(engine: Engine, prompt: list[int], **params: object) -> Request:
    values = {"temperature": 1.0, "seed": 1, "logprobs": 0, "ignore_eos": True} | params
    if "beam_width" in params:
        values = {"ignore_eos": True} | params
    return engine.add(prompt, SamplingParams.parse(values), RequestOptions())


def run(engine: Engine, runner: Runner) -> int:
    """Step to the end; every row is that of its branch computed whole. The number of rows."""
    found = []
    while engine.has_unfinished:
        for output in engine.step().outputs:
            branch = output.row.item.branch
            tokens = tuple(branch.tokens[: output.row.position + 1])
            found.append((tokens, branch.request.num_prompt_tokens, output))
        engine.check_integrity()
    rows: dict[tuple[int, ...], Row] = {}
    for tokens, prompt, output in sorted(found, key=lambda each: -len(each[0])):
        if tokens not in rows:
            rows |= whole(runner, tokens, prompt)
        if output.logits is None:
            assert output.top == best(rows[tokens], len(output.top))
        else:
            assert Row(output.logits, output.log_sum_exp) == rows[tokens]
    return len(found)


def whole(runner: Runner, tokens: tuple[int, ...], prompt: int) -> dict[tuple[int, ...], Row]:
    """The rows from the last of the prompt on, of all tokens in one forward."""
    positions = range(prompt - 1, len(tokens))
    table = [list(range(-(-len(tokens) // 32)))]
    wants = [Want.LOGITS] * len(positions)
    out = runner.forward(make_batch([(tokens, 0)], table, 1, positions, wants))
    found = zip(positions, out.logits, out.log_sum_exp.tolist(), strict=True)
    return {tokens[: position + 1]: Row(*row) for position, *row in found}


def test_shared_prefixes(engine: Engine, runners: dict[int, Runner]) -> None:
    """Cold; found whole; parted inside a block; and what was generated, at the next turn."""
    prompt = PROMPTS[8]
    first = ask(engine, prompt, max_tokens=6)
    assert run(engine, runners[1]) == 6
    turn = [*first.branches[0].tokens, 5, 6, 7]
    for tokens, matched in ((prompt, 149), ([*prompt[:83], 9, 9], 83), (turn, 155)):
        request = ask(engine, tokens, max_tokens=4)
        assert run(engine, runners[1]) == 4
        assert request.cache is not None
        assert request.cache.matched_tokens == matched


def test_forks_and_beams(engine: Engine, runners: dict[int, Runner]) -> None:
    """Both prompts end inside a block, which every branch but one copies."""
    copied = engine.counts()["kv_blocks_copied"]
    ask(engine, PROMPTS[2], n=3, max_tokens=10)
    ask(engine, PROMPTS[4], beam_width=3, max_tokens=10)
    assert run(engine, runners[1]) == (1 + 3 * 9) + (1 + 3 * 9)
    assert engine.counts()["kv_blocks_copied"] >= copied + 2 + 2


def test_preempted_and_resumed(engine: Engine, runners: dict[int, Runner]) -> None:
    """Each grows to six or seven of the 17 blocks; the one that came last gives way."""
    prompts = [PROMPTS[0][:150], PROMPTS[5][:150], PROMPTS[6][:150]]
    requests = [ask(engine, prompt, max_tokens=45) for prompt in prompts]
    assert run(engine, runners[1]) == 3 * 45
    assert [r.num_preemptions > 0 for r in requests] == [False, False, True]
