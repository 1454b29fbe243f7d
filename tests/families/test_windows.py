"""What windows hide, and what chats find again of a model with windows, and why not more.

Of the chats: window 20, blocks of 16.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from octavo.batch import FloatArray
from octavo.engine.engine import Engine
from octavo.engine.nouns import Request
from octavo.kernels import native
from octavo.records import CacheReason
from octavo.weights.ggml_type import GGMLType
from tests.engine.tiny_engine import add, run, tiny_engine
from tests.families.checkpoints import CONFIGS, model
from tests.families.drawn import TOKENS
from tests.program.test_native_groups import two_groups
from tests.tiny import all_logits, make_runner, random_model

POOL = native.ThreadPool(2)
MODEL = random_model(two_groups(), POOL, type=GGMLType.Q8_0)


@pytest.mark.parametrize("window", [23, 24, 600])
def test_a_window_as_long_as_the_rows_hides_nothing_whatever_the_context_is(window: int) -> None:
    """Its layers turn by their own base even if no context can pass it."""
    config = replace(CONFIGS["gemma3"], context=24)

    def logits(window: int, context: int) -> FloatArray:
        tiny = model(replace(config, window=window, context=context), POOL)
        runner = make_runner(tiny, POOL, num_blocks=1, context=context)
        assert runner.op_names.count("QKV") == config.num_layers
        return all_logits(runner, TOKENS[:24])

    assert np.array_equal(logits(window, 24), logits(24, 32)) == (window >= 24)


def engine_of(num_blocks: int) -> Engine:
    return tiny_engine(MODEL, POOL, num_blocks=num_blocks, block_size=16, max_rows=32, context=600)


def turn(engine: Engine, history: Sequence[int], first: int) -> tuple[Request, list[int]]:
    """A question of 15 tokens after what was said, answered with 9; all that was said then."""
    prompt = [*history, *((first + 7 * i) % 299 + 1 for i in range(15))]
    request = add(engine, prompt, max_tokens=9, temperature=0, ignore_eos=True)
    run(engine)
    return request, request.branches[0].tokens


def matched(request: Request) -> int:
    assert request.cache is not None
    return request.cache.matched_tokens


def text(first: int, length: int) -> list[int]:
    return [(first + 11 * i + i * i) % 299 + 1 for i in range(length)]


def test_the_next_turn_finds_all_of_the_turn_before() -> None:
    engine = engine_of(64)
    _, said = turn(engine, text(1, 300), 5)
    second, _ = turn(engine, said, 9)
    assert matched(second) == len(said) - 1  # K and V of the last token were never needed


def test_a_prompt_that_parts_finds_what_was_before_and_less_when_its_window_is_gone() -> None:
    engine = engine_of(48)
    turn(engine, text(1, 400), 5)
    parted, _ = turn(engine, text(1, 200), 100)
    assert matched(parted) == 200
    turn(engine, text(3, 350), 5)  # takes what windows left behind
    later, _ = turn(engine, text(1, 100), 200)
    assert matched(later) < 100
    assert later.cache is not None
    assert later.cache.known_tokens == 100
    reasons = [request.cache.reason for request in (parted, later) if request.cache]
    assert reasons == [CacheReason.DIVERGED, CacheReason.WINDOW]


def test_chats_in_turn_keep_the_ends_that_they_go_on_from() -> None:
    """Room for all full blocks of 8 chats, and of the windows for 16 times what one reads."""
    full, windowed = tiny_engine(MODEL, POOL).kv.groups
    longest = 200 + 5 * 24
    room = 8 * -(-longest // 16) * full.block_bytes + 16 * 3 * windowed.block_bytes
    engine = engine_of(-(-room // (full.block_bytes + windowed.block_bytes)))
    said = [text(chat, 200) for chat in range(8)]
    found = reusable = 0
    for round in range(5):
        for chat in range(8):
            request, said_now = turn(engine, said[chat], 31 * chat + round)
            found += matched(request) if round else 0
            reusable += len(said[chat]) - 1 if round else 0
            said[chat] = said_now
    assert engine.counts()["kv_blocks_evicted"] > 0
    assert found >= 0.95 * reusable
