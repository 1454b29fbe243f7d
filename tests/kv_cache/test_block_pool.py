"""The block pool against a plain model: two sets of ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.kv_cache.block_pool import BlockPool


def test_blocks_are_taken_given_back_and_taken_again() -> None:
    pool = BlockPool(4)
    first = pool.allocate(3)
    assert first == [0, 1, 2]
    assert pool.allocate(2) is None  # too few: nothing is taken
    assert pool.num_free == 1
    pool.free(reversed(first))
    assert pool.allocate(4) == [0, 1, 2, 3]
    pool.check_integrity()


def test_freeing_twice_is_a_bug() -> None:
    pool = BlockPool(2)
    blocks = pool.allocate(1)
    assert blocks is not None
    pool.free(blocks)
    with pytest.raises(AssertionError):
        pool.free(blocks)


def test_a_lost_block_and_one_that_is_free_twice_are_noticed() -> None:
    lost, twice = BlockPool(3), BlockPool(3)
    lost._cold.pop()
    twice._cold[0] = twice._cold[1]
    for pool in (lost, twice):
        with pytest.raises(AssertionError):
            pool.check_integrity()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), max_size=60))
def test_every_block_is_free_or_held(steps: list[tuple[bool, int]]) -> None:
    pool, held = BlockPool(10), []
    for is_allocate, count in steps:
        if is_allocate:
            taken = pool.allocate(count)
            assert (taken is None) == (count > 10 - len(held))
            assert not set(taken or []) & set(held)
            held += taken or []
        else:
            given_back, held = held[:count], held[count:]
            pool.free(given_back)
        assert pool.num_held == len(held)
        pool.check_integrity()
