"""SmolLM2: float32 logits equal with `==`, whatever the batch, chunks, cache, forks and threads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from octavo.batch import Asked, Want, make_batch
from octavo.config import EngineConfig
from octavo.engine.engine import Engine
from octavo.engine.nouns import Request
from octavo.engine.runner import Runner, blocks_bytes
from octavo.kernels import native
from octavo.loaded_model import open_model
from octavo.request import RequestOptions
from octavo.sampling_params import SamplingParams
from octavo.verification import Subject
from octavo.verification.recorder import RecordingRunner
from octavo.weights.model_weights import load_weights
from tests.engine.tiny_engine import engine_over
from tests.exactness.alone import Alone, beams, compare

pytestmark = pytest.mark.usefixtures("every_cpu")
RNG = np.random.default_rng(5)
PROMPTS = [
    [int(t) for t in RNG.integers(0, 49152, length)]
    for length in (300, 1, 37, 64, 65, 256, 257, 2, 150)
]
BLOCKS = 12  # of 32 tokens, for each branch


POOLS = {threads: native.ThreadPool(threads) for threads in (1, 2, 3)}
CONFIG = EngineConfig(step_ms=None)


@pytest.fixture(scope="module")
def subject(smollm2_path: Path) -> Subject:
    header, program = open_model(smollm2_path)
    weights = load_weights(header, program.weights(), POOLS[2], asked=CONFIG.weights)
    return Subject(program, weights, context=512)


@pytest.fixture(scope="module")
def runners(subject: Subject) -> dict[int, Runner]:
    return {
        threads: Runner(
            subject.program, subject.weights, CONFIG,
            pool=pool, context=subject.context, max_rows=1200,
            kv_budget=blocks_bytes(subject.program, CONFIG, 9 * BLOCKS),
        )
        for threads, pool in POOLS.items()
    }  # fmt: skip


@pytest.fixture(scope="module")
def reference(runners: dict[int, Runner]) -> Alone:
    """Rows of tokens computed whole, by themselves, on one thread."""
    return Alone(runners[1], frozenset())


@pytest.fixture(scope="module")
def alone(reference: Alone) -> list[NDArray[np.float32]]:
    """The last row's logits of each prompt."""
    return [reference.row(prompt).logits for prompt in PROMPTS]


def step(
    runner: Runner, spans: list[tuple[list[int], int]], places: list[int]
) -> NDArray[np.float32]:
    """(len(spans), vocab): one step; each branch in the blocks of its place."""
    tables = [list(range(p * BLOCKS, (p + 1) * BLOCKS)) for p in places]
    last = (np.cumsum([len(tokens) for tokens, _ in spans]) - 1).tolist()
    return runner.run(make_batch(spans, [tables], last, [Asked(Want.LOGITS)] * len(spans))).logits


@pytest.mark.parametrize(
    ("count", "threads"), [*((n, 1 + n % 3) for n in range(1, 9)), (9, 1), (9, 2), (9, 3)]
)
def test_ragged_neighbours(
    runners: dict[int, Runner], alone: list[NDArray[np.float32]], count: int, threads: int
) -> None:
    chosen = [(i + count) % len(PROMPTS) for i in range(count)]
    together = step(runners[threads], [(PROMPTS[i], 0) for i in chosen], list(range(count)))
    for got, i in zip(together, chosen, strict=True):
        assert np.array_equal(got, alone[i])


@pytest.mark.parametrize(
    ("cut", "threads"),
    [(1, 2), (31, 1), (32, 3), (63, 2), (64, 2), (100, 1), (255, 2), (256, 1), (257, 3), (299, 3)],
)
def test_chunked_prefill(
    runners: dict[int, Runner], alone: list[NDArray[np.float32]], cut: int, threads: int
) -> None:
    prompt = PROMPTS[0]
    step(runners[threads], [(prompt[:cut], 0)], [3])
    assert np.array_equal(step(runners[threads], [(prompt[cut:], cut)], [3])[0], alone[0])


def test_with_the_cache_a_token_equals_the_run_without(runners: dict[int, Runner]) -> None:
    """Decode step by step; compared around the ends of units, blocks and tiles."""
    prompt = PROMPTS[4]
    for end in range(1, len(prompt) + 1):
        cached = step(runners[2], [(prompt[end - 1 : end], end - 1)], [0])
        if end % 32 in (0, 1, 2, 15, 16, 17, 31):
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
def engine(subject: Subject) -> Engine:
    """Make an engine with 17 blocks of 32 tokens."""
    runner = RecordingRunner(
        subject.program, subject.weights, CONFIG,
        pool=POOLS[2], context=subject.context, max_rows=512,
        kv_budget=blocks_bytes(subject.program, CONFIG, 17),
    )  # fmt: skip
    return engine_over(runner, subject.program, context=subject.context, step_ms=None)


def ask(engine: Engine, prompt: list[int], **params: object) -> Request:
    values = {"temperature": 1.0, "seed": 1, "logprobs": 0, "ignore_eos": True} | params
    if "beam_width" in params:
        values = {"ignore_eos": True} | params
    return engine.add(prompt, SamplingParams.parse(values), RequestOptions())


def run(engine: Engine, reference: Alone) -> int:
    """Step to the end; every row is that of its branch computed whole. The number of rows."""
    runner = engine.runner
    assert isinstance(runner, RecordingRunner)
    while engine.has_unfinished:
        engine.step()
        engine.check_integrity()
    return compare(runner.take_rows(), reference)


def test_shared_prefixes(engine: Engine, reference: Alone) -> None:
    """Cold; found whole; parted inside a block; and what was generated, at the next turn."""
    prompt = PROMPTS[8]
    first = ask(engine, prompt, max_tokens=6)
    assert run(engine, reference) == 6
    turn = [*first.branches[0].tokens, 5, 6, 7]
    for tokens, matched in ((prompt, 149), ([*prompt[:83], 9, 9], 83), (turn, 155)):
        request = ask(engine, tokens, max_tokens=4)
        assert run(engine, reference) == 4
        assert request.cache is not None
        assert request.cache.matched_tokens == matched


def test_forks_and_beams(engine: Engine, reference: Alone) -> None:
    """Both prompts end inside a block, which every branch but one copies."""
    copied = engine.counts()["kv_blocks_copied"]
    ask(engine, PROMPTS[2], n=3, max_tokens=10)
    searched = ask(engine, PROMPTS[4], beam_width=3, max_tokens=10)
    assert run(engine, reference) == (1 + 3 * 9) + (1 + 3 * 9)
    assert engine.counts()["kv_blocks_copied"] >= copied + 2 + 2
    assert beams(searched) == reference.beams(searched, 0, None)


def test_preempted_and_resumed(engine: Engine, reference: Alone) -> None:
    """Each grows to six or seven of the 17 blocks; the one that came last gives way."""
    prompts = [PROMPTS[0][:150], PROMPTS[5][:150], PROMPTS[6][:150]]
    requests = [ask(engine, prompt, max_tokens=45) for prompt in prompts]
    assert run(engine, reference) == 3 * 45
    assert [r.num_preemptions > 0 for r in requests] == [False, False, True]
