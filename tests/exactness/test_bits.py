"""Bits of a request's logits depend on the request alone: not on its batch, its chunks, its blocks,
its threads."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.batch import Asked, Want, make_batch
from octavo.engine.runner import Runner
from octavo.kernels import native
from octavo.weights.ggml_type import GGMLType
from tests.tiny import SMALL_BLOCKS, TINY, all_logits, make_runner, tiny_model

RNG = np.random.default_rng(3)
LONG = [int(t) for t in RNG.integers(0, TINY.vocab_size, 600)]  # three chunks of attention
pytestmark = pytest.mark.usefixtures("every_cpu")
POOLS = {n: native.ThreadPool(n) for n in (1, 2, 3)}


@cache
def runner_of(threads: int, kv: str) -> Runner:
    pool = POOLS[threads]
    return make_runner(tiny_model(TINY, pool), pool, num_blocks=96, max_rows=640, kv_dtype=kv)


@pytest.mark.parametrize("kv", ["bf16", "f32", "int8", "int4"])
def test_threads(kv: str) -> None:
    one = all_logits(runner_of(1, kv), LONG)
    for threads in (2, 3):
        assert np.array_equal(all_logits(runner_of(threads, kv), LONG), one)


@pytest.mark.parametrize("threads", [16, 17])
def test_more_threads_than_an_op_has_work_for(threads: int) -> None:
    """The counters of an op's parts are whole lines of 16, and a head has three phases."""
    pool = native.ThreadPool(threads)
    runner = make_runner(tiny_model(TINY, pool), pool, max_rows=128)
    one = runner_of(1, "bf16")
    for rows in (1, 5, 100):
        wants = [Asked(Want.ARGMAX)] * rows
        batch = make_batch([(LONG[:rows], 0)], [[list(range(4))]], range(rows), wants)
        want, got = one.run(batch), runner.run(batch)
        assert np.array_equal(got.argmax, want.argmax)
        assert np.array_equal(got.log_sum_exp, want.log_sum_exp)
        assert np.array_equal(all_logits(runner, LONG[:rows]), all_logits(one, LONG[:rows]))


@pytest.mark.parametrize("kv", ["bf16", "f32", "int8", "int4"])
@settings(max_examples=15, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 599), max_size=6, unique=True).map(sorted),
    threads=st.sampled_from([1, 2, 3]),
)
def test_chunks(kv: str, cuts: list[int], threads: int) -> None:
    assert np.array_equal(
        all_logits(runner_of(threads, kv), LONG, cuts), all_logits(runner_of(1, kv), LONG)
    )


@pytest.mark.parametrize("kv", ["bf16", "f32", "int8", "int4"])
def test_token_by_token_equals_the_whole(kv: str) -> None:
    prompt = LONG[:280]
    assert np.array_equal(
        all_logits(runner_of(2, kv), prompt, range(1, 280)), all_logits(runner_of(2, kv), prompt)
    )


@settings(max_examples=25, deadline=None)
@given(
    spans=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 40)), min_size=1, max_size=9),
    threads=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 1000),
)
def test_neighbours_of_any_length(spans: list[tuple[int, int]], threads: int, seed: int) -> None:
    """1 to 9 branches, each with `first` tokens cached and `count` new, in shuffled blocks."""
    runner = runner_of(threads, "bf16")
    rng = np.random.default_rng(seed)
    free = [int(b) for b in rng.permutation(runner.num_blocks[0])]
    branches, tables = [], []
    for first, count in spans:
        blocks = -(-(first + count) // 32)
        if blocks > len(free):
            break
        tables.append([free.pop() for _ in range(blocks)])
        branches.append(([int(t) for t in rng.integers(0, TINY.vocab_size, first + count)], first))
    for (tokens, first), table in zip(branches, tables, strict=True):
        if first:
            all_logits(runner, tokens[:first], table=table)
    new = [(tokens[first:], first) for tokens, first in branches]
    rows = sum(len(tokens) for tokens, _ in new)
    batch = make_batch(new, [tables], range(rows), [Asked(Want.LOGITS)] * rows)
    together = runner.run(batch).logits
    alone = [all_logits(runner_of(1, "bf16"), tokens)[first:] for tokens, first in branches]
    assert np.array_equal(together, np.concatenate(alone))


@pytest.mark.parametrize("block_size", [16, 64])
def test_block_size(block_size: int) -> None:
    runner = make_runner(
        tiny_model(TINY, POOLS[2]),
        POOLS[2],
        num_blocks=3072 // block_size,
        max_rows=640,
        block_size=block_size,
    )
    assert np.array_equal(
        all_logits(runner, LONG, [37, 411]), all_logits(runner_of(1, "bf16"), LONG)
    )


@pytest.mark.parametrize(
    ("type", "activations"),
    [
        (GGMLType.Q8_0, "int8"),
        (GGMLType.Q4_0, "int8"),
        (GGMLType.Q5_0, "int8"),
        (GGMLType.Q2_K, "int8"),
        (GGMLType.Q3_K, "int8"),
        (GGMLType.IQ4_NL, "int8"),
        (GGMLType.IQ4_XS, "int8"),
        (GGMLType.MXFP4, "int8"),
        (GGMLType.MXFP4, "bf16"),
        (GGMLType.Q2_K, "bf16"),
        (GGMLType.IQ4_XS, "bf16"),
        (GGMLType.Q4_1, "bf16"),
        (GGMLType.Q8_0, "bf16"),
        (GGMLType.BF16, None),
        (GGMLType.F32, None),
    ],
)
def test_every_kind_of_row(type: GGMLType, activations: str | None) -> None:
    config = SMALL_BLOCKS if type.block_values == 256 else TINY
    model = tiny_model(config, POOLS[3], type=type)
    runner = make_runner(model, POOLS[3], max_rows=128, activations=activations)
    prompt = LONG[:100]
    whole = all_logits(runner, prompt)
    assert np.array_equal(all_logits(runner, prompt, [1, 2, 3, 9, 64, 65]), whole)


def test_an_uneven_head_split_gives_the_same_bits() -> None:
    config = replace(TINY, heads=9, kv_heads=3)
    one, three = (make_runner(tiny_model(config, POOLS[n]), POOLS[n], max_rows=128) for n in (1, 3))
    assert np.array_equal(all_logits(one, LONG[:100]), all_logits(three, LONG[:100], [33, 99]))


@pytest.mark.parametrize("head_dim", [20, 32])
@pytest.mark.parametrize("style", ["half", "interleaved"])
def test_a_part_of_a_head_turned_and_a_window_in_all_layers(head_dim: int, style: Any) -> None:
    config = replace(
        TINY,
        architecture="phi3",
        head_dim=head_dim,
        rotary_dim=10,
        rope_style=style,
        window=24,
        windowed=(True, True),
    )
    one, three = (
        make_runner(tiny_model(config, POOLS[n]), POOLS[n], max_rows=128, fuse=n == 3)
        for n in (1, 3)
    )
    whole = all_logits(one, LONG[:100])
    assert np.array_equal(all_logits(three, LONG[:100], [*range(7, 100, 7)]), whole)
    assert not np.array_equal(
        all_logits(
            make_runner(tiny_model(replace(config, window=0, windowed=()), POOLS[1]), POOLS[1]),
            LONG[:100],
        ),
        whole,
    )


def test_what_was_in_the_pages_before_does_not_matter() -> None:
    """Stale pages of another request, NaN included, never reach a row."""
    model = tiny_model(TINY, POOLS[2])
    clean = make_runner(model, POOLS[2])
    dirty = make_runner(model, POOLS[2])
    pages = np.frombuffer(dirty.storages[0].memory, np.uint16)
    pages[:] = 0x7FC1  # NaN in bf16
    prompt = LONG[:90]
    assert np.array_equal(all_logits(dirty, prompt, [50]), all_logits(clean, prompt))
