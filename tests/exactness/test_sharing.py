"""What a request shares, and how it is cut, never changes a bit of its logits.

Each story says what was shared, in exact numbers; every row that came out of the head is compared
with that of the same tokens computed whole, alone, on one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

from octavo.engine.engine import Engine
from octavo.engine.nouns import Request
from octavo.kernels import native
from octavo.kv_cache import block_names
from octavo.request import RequestOptions
from octavo.verification.recorder import RecordingRunner
from tests.engine.tiny_engine import add, engine_over
from tests.exactness.alone import Alone, beams, compare
from tests.tiny import TINY, TinyModel, make_runner, make_runner_of, tiny_model

RNG = np.random.default_rng(11)
PROMPT = [int(t) for t in RNG.integers(0, TINY.vocab_size, 70)]
OTHER = [int(t) for t in RNG.integers(0, TINY.vocab_size, 300)]
MakeEngine = Callable[..., Engine]


@cache
def loaded(threads: int) -> tuple[TinyModel, native.ThreadPool]:
    pool = native.ThreadPool(threads)
    return tiny_model(TINY, pool), pool


@cache
def alone() -> Alone:
    model, pool = loaded(1)
    return Alone(make_runner(model, pool, max_rows=1024), frozenset())


@pytest.fixture(params=[1, 2])
def make(request: pytest.FixtureRequest) -> MakeEngine:
    """Engines on so many threads, with blocks of 32 tokens and no target of time."""
    model, pool = loaded(request.param)

    def make_engine(*, num_blocks: int = 64, max_rows: int = 128, **options: Any) -> Engine:
        options = {"step_ms": None, "context": num_blocks * options.get("block_size", 32)} | options
        runner = make_runner_of(
            RecordingRunner, model, pool, num_blocks=num_blocks, max_rows=max_rows, **options
        )
        return engine_over(runner, model.program, **options)

    return make_engine


def ask(engine: Engine, tokens: Sequence[int], *, salt: str = "", **params: Any) -> Request:
    """Sampled from logits, so that these can be compared."""
    values = {"max_tokens": 4, "temperature": 1.0, "seed": 5, "logprobs": 0} | params
    return add(engine, tokens, RequestOptions(cache_salt=salt), **values)


def ask_beams(engine: Engine, tokens: Sequence[int], width: int, max_tokens: int) -> Request:
    return add(engine, tokens, beam_width=width, n=width, max_tokens=max_tokens)


def run(engine: Engine) -> int:
    """Step to the end; the number of rows compared."""
    runner, rows = engine.runner, 0
    assert isinstance(runner, RecordingRunner)
    while engine.has_unfinished:
        engine.step()
        engine.check_integrity()
        rows += compare(runner.take_rows(), alone())
    return rows


def cached(request: Request) -> int:
    assert request.cache is not None
    return request.cache.matched_tokens


def test_in_a_batch(make: MakeEngine) -> None:
    engine = make()
    for tokens in (PROMPT, OTHER, OTHER[5:38], PROMPT[1:]):
        ask(engine, tokens)
    assert run(engine) == 4 * 4
    assert engine.counts()["kv_blocks_copied"] == 0


def test_in_chunks_of_every_size(make: MakeEngine) -> None:
    for rows in range(1, 71):
        engine = make(max_rows=rows, num_blocks=4)
        ask(engine, PROMPT, max_tokens=1)
        assert run(engine) == 1
        assert len(engine.records) == -(-70 // rows)


def test_a_prompt_found_whole_runs_only_its_last_token(make: MakeEngine) -> None:
    engine = make()
    for times, prompt in enumerate((PROMPT, PROMPT[:64], PROMPT[:33], PROMPT[:32], PROMPT[:1])):
        request = ask(engine, prompt, max_tokens=1)
        assert run(engine) == 1
        assert cached(request) == (0 if times == 0 else len(prompt) - 1)
        assert engine.records[-1].computed_tokens == (70 if times == 0 else 1)
    assert engine.counts()["kv_blocks_copied"] == 0  # it was not stored


@pytest.mark.parametrize("block_size", [16, 32, 64])
def test_a_prompt_that_diverges_after_every_token(make: MakeEngine, block_size: int) -> None:
    engine = make(block_size=block_size, num_blocks=80 * 64 // block_size)
    ask(engine, PROMPT)
    run(engine)
    for shared in range(1, 70):
        token = next(t for t in range(99) if t not in PROMPT)
        request = ask(engine, [*PROMPT[:shared], token, 7 + shared], salt="", max_tokens=2)
        assert run(engine) == 2
        assert cached(request) == shared
    # A whole block is shared as it is; what diverges inside one is copied.
    assert engine.counts()["kv_blocks_copied"] == 69 - 69 // block_size


def test_the_next_turn_finds_the_answer_too(make: MakeEngine) -> None:
    engine = make()
    tokens = PROMPT[:20]
    for turn in range(5):
        request = ask(engine, tokens, max_tokens=9)
        assert run(engine) == 9
        # The last token drawn was never computed.
        assert cached(request) == (0 if turn == 0 else len(tokens) - 1 - 3)
        tokens = [*request.branches[0].tokens, 1, 2, 3]
    assert engine.counts()["kv_blocks_copied"] == 0  # the turns before left the blocks to this one


def test_two_turns_that_go_on_from_one_answer(make: MakeEngine) -> None:
    engine = make()
    first = ask(engine, PROMPT[:20], max_tokens=9)
    run(engine)
    tokens = first.branches[0].tokens
    ones = [ask(engine, [*tokens, token], max_tokens=9) for token in (1, 2, 3)]
    assert run(engine) == 27
    assert [cached(one) for one in ones] == [28, 28, 28]
    # Slot 28 is written by all three: two of them copy the block, the last of them has it alone.
    assert engine.counts()["kv_blocks_copied"] == 2


@pytest.mark.parametrize("n", [2, 3, 6])
def test_answers_of_one_prompt(make: MakeEngine, n: int) -> None:
    engine = make()
    request = ask(engine, PROMPT, n=n, max_tokens=30)
    assert run(engine) == 1 + n * 29
    answers = {tuple(s.completion_token_ids) for s in request.branches}
    assert len(answers) == n
    assert engine.records[0].computed_tokens == 70  # the prompt, once
    assert engine.counts()["kv_blocks_copied"] == n - 1  # its third block, which is not full


@pytest.mark.parametrize("width", [2, 4])
def test_beams(make: MakeEngine, width: int) -> None:
    engine = make()
    request = ask_beams(engine, PROMPT, width, 40)
    rows = run(engine)
    assert rows == 1 + width * 39
    assert beams(request) == alone().beams(request, 0, None)
    assert engine.counts()["kv_blocks_copied"] > 0


def test_preempted_and_resumed_from_what_was_left(make: MakeEngine) -> None:
    """Six blocks; each of the three requests grows to three of them."""
    engine = make(num_blocks=6)
    requests = [ask(engine, OTHER[i : i + 40], max_tokens=50) for i in (0, 100, 200)]
    assert run(engine) == 150  # no token was drawn twice
    assert [r.num_preemptions > 0 for r in requests] == [False, False, True]
    for request in requests:
        answer = alone().answer(request, 0, 50)
        assert request.branches[0].tokens == answer.tokens


def test_answers_preempted_together(make: MakeEngine) -> None:
    engine = make(num_blocks=10)
    first = ask(engine, OTHER[:60], max_tokens=100)
    forked = ask(engine, PROMPT[:40], max_tokens=60, n=3)
    searched = ask_beams(engine, PROMPT[5:50], 2, 50)
    assert run(engine) == 100 + (1 + 3 * 59) + (1 + 2 * 49)
    assert first.num_preemptions == 0
    assert forked.num_preemptions + searched.num_preemptions > 0
    for branch in forked.branches:
        assert branch.tokens == alone().answer(forked, branch.index, 60).tokens
    assert beams(searched) == alone().beams(searched, 0, None)


def test_evicted_and_computed_again(make: MakeEngine) -> None:
    engine = make(num_blocks=10)
    for tokens, matched in ((PROMPT, 0), (OTHER, 0), (PROMPT, 0), (PROMPT, 69)):
        request = ask(engine, tokens)
        run(engine)
        assert cached(request) == matched
    assert engine.counts()["kv_blocks_evicted"] >= 3


def test_many_offered_at_once_compute_their_prefix_once(make: MakeEngine) -> None:
    engine = make(max_rows=48, num_blocks=100)
    requests = [ask(engine, [*OTHER[:256], i], max_tokens=1) for i in range(32)]
    assert run(engine) == 32
    assert [cached(r) for r in requests] == [0] + [256] * 31
    assert sum(r.computed_tokens for r in engine.records) == 256 + 32


def test_each_row_of_a_prompt(make: MakeEngine) -> None:
    engine = make(max_rows=33)
    ask(engine, PROMPT)
    run(engine)
    request = ask(engine, PROMPT, prompt_logprobs=1, max_tokens=2)
    assert run(engine) == 71
    assert cached(request) == 0
    assert request.row_values == alone().row_values(request)


@pytest.mark.parametrize("option", ["kv_cache", "prefix_cache"])
def test_without_a_cache(make: MakeEngine, option: str) -> None:
    engine = make(**{option: False})
    for _ in range(2):
        request = ask(engine, PROMPT, n=2)
        assert run(engine) == 1 + 2 * 3
        assert cached(request) == 0


def test_another_tenant_computes_the_same_bits_itself(make: MakeEngine) -> None:
    engine = make()
    found = []
    for salt in ("", "alice", "", "alice"):
        request = ask(engine, PROMPT, salt=salt)
        run(engine)
        found.append(cached(request))
    assert found == [0, 0, 69, 69]


def test_a_hash_that_is_always_the_same_changes_nothing(
    make: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of blocks are looked at from outside; what matches is decided by the tokens."""
    monkeypatch.setattr(block_names, "digest", lambda data: b"same")
    engine = make()
    found = []
    for tokens in (PROMPT, OTHER[:70], PROMPT, [*OTHER[:50], 5], [*PROMPT[:32], *OTHER[32:70]]):
        request = ask(engine, tokens)
        assert run(engine) == 4
        found.append(cached(request))
    assert found == [0, 0, 69, 50, 32]
