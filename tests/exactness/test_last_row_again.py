"""A prompt found whole in the pages: its last row runs again without storing (what that means for
the page: tests/program/test_write_starts.py) and has the bits of the first time."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.batch import Asked, Want, make_batch
from octavo.engine.runner import Runner
from octavo.kernels import native
from tests.tiny import TINY, all_logits, make_runner, tiny_model

RNG = np.random.default_rng(5)
LONG = [int(t) for t in RNG.integers(0, TINY.vocab_size, 560)]
POOLS = {n: native.ThreadPool(n) for n in (1, 2, 3)}
SHAPES = {"gqa": TINY, "mha": replace(TINY, kv_heads=4), "mqa": replace(TINY, kv_heads=1)}
LENGTHS = [1, 31, 32, 33, 256, 257, 560]  # blocks of 32, partly filled and full; chunks of 256


@cache
def runner_of(name: str, threads: int, kv: str, *, is_alone: bool = False) -> Runner:
    """What runs alone has pages of its own."""
    model = tiny_model(SHAPES[name], POOLS[threads])
    return make_runner(model, POOLS[threads], num_blocks=400, max_rows=640, kv_dtype=kv)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kv", ["bf16", "f32", "int8", "int4"])
@pytest.mark.parametrize("length", LENGTHS)
def test_its_logits_are_those_of_the_original_run(name: str, kv: str, length: int) -> None:
    runner = runner_of(name, 2, kv)
    prompt = LONG[:length]
    original = all_logits(runner, prompt)
    tables = [[range(count)] for count in runner.num_blocks]
    span = [(prompt[-1:], length - 1)]
    batch = make_batch(span, tables, [0], [Asked(Want.LOGITS)], write_starts=[length])
    assert np.array_equal(runner.run(batch).logits[0], original[-1])
    # And what follows it is the same as without the hit.
    following = make_batch([([7], length)], tables, [0], [Asked(Want.LOGITS)])
    assert np.array_equal(
        runner.run(following).logits[0], all_logits(runner_of(name, 2, kv), [*prompt, 7])[-1]
    )


@settings(max_examples=25, deadline=None)
@given(
    shared=st.integers(1, 290),
    again=st.integers(1, 5),
    others=st.lists(st.tuples(st.integers(0, 200), st.integers(1, 40)), max_size=4),
    threads=st.sampled_from([1, 2, 3]),
    kv=st.sampled_from(["bf16", "f32", "int8", "int4"]),
    seed=st.integers(0, 1000),
)
def test_in_a_batch_where_only_some_sequences_store(
    shared: int, again: int, others: list[tuple[int, int]], threads: int, kv: str, seed: int
) -> None:
    """`again` branches share one prompt's blocks and run its last row; the others store theirs."""
    runner = runner_of("gqa", threads, kv)
    rng = np.random.default_rng(seed)
    free = [int(b) for b in rng.permutation(min(runner.num_blocks))]
    prompts = [LONG[:shared]]
    prompts += [[int(t) for t in rng.integers(0, TINY.vocab_size, sum(o))] for o in others]
    tables = [[free.pop() for _ in range(-(-len(prompt) // 32))] for prompt in prompts]
    computed = [shared, *(first for first, _ in others)]
    for prompt, table, count in zip(prompts, tables, computed, strict=True):
        if count:
            all_logits(runner, prompt[:count], table=table)
    branches = [0] * again + list(range(1, len(prompts)))
    rng.shuffle(branches)
    firsts = [shared - 1 if i == 0 else computed[i] for i in branches]
    spans = [(prompts[i][first:], first) for i, first in zip(branches, firsts, strict=True)]
    rows = sum(len(tokens) for tokens, _ in spans)
    batch = make_batch(
        spans, [[tables[i] for i in branches]] * len(runner.groups), range(rows),
        [Asked(Want.LOGITS)] * rows, write_starts=[computed[i] for i in branches],
    )  # fmt: skip
    together = runner.run(batch).logits
    alone = [
        all_logits(runner_of("gqa", 2, kv, is_alone=True), prompts[i])[first:]
        for i, first in zip(branches, firsts, strict=True)
    ]
    assert np.array_equal(together, np.concatenate(alone))
