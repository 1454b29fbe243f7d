"""Which blocks that a window left behind are the last to go: those that rows read which go on where
a prompt ended, where others parted from it, or where an answer ended."""

from __future__ import annotations

from octavo.kv_cache.block_table import BlockTable
from octavo.kv_cache.groups import BlockId, KeepAll, KeepLast, LayerGroup
from octavo.records import CacheReason
from tests.kv_cache.tiny_tables import TinyTables

LAST_4 = LayerGroup(1, KeepLast(4))
TEXT = "aaaa bbbb cccc dddd eeee f"


def test_the_end_of_a_prompt_stays_longest_and_what_lies_between_goes_first() -> None:
    """The prompt ends with block 1; the row after it reads that and nothing before."""
    it = TinyTables(12, [LAST_4], max_rows=16)
    table = it.begin(TEXT, num_prompt=8)
    for end in range(1, 22):
        assert it.reserve(table, end)
        it.commit(table, TEXT.replace(" ", "")[:end])
    assert table.blocks == ([None, None, None, None, 4, 5],)
    assert list(it.pool.spare) == [0, 2, 3]
    assert list(it.order) == [1]
    it.drop(table)
    assert it.evictable == [0, 2, 3, 1, 4]  # the answer's end too, and what is no block is lost
    assert it.found("aaaa bbbb x") == 8


def test_where_another_prompt_parted_stays() -> None:
    it = TinyTables(16, [LayerGroup(1, KeepAll()), LAST_4], max_rows=16)
    it.drop(it.admit("aaaa bbbb cccc d"))
    other = it.begin("aaaa bbbb xxxx yyyy z")
    parted = other.blocks[1][1]
    assert parted is not None
    it.run(other, "aaaa bbbb xxxx yyyy z")
    assert other.blocks[1][:3] == [None, None, None]
    assert parted in list(it.order)
    assert parted not in it.pool.spare
    assert len(it.pool.spare) == 2  # xxxx, and aaaa, which the first left behind


def test_what_one_frees_as_an_end_and_another_lets_go_is_kept() -> None:
    it = TinyTables(12, [LAST_4], max_rows=16)
    first = it.begin("aaaa bbbb cccc", num_prompt=4)
    it.run(first, "aaaa")
    second = it.fork(first)
    second.ends = ()
    it.run(first, "aaaa bbbb")
    it.run(second, "aaaa xxxx")
    assert list(it.order) == [0]
    assert not it.pool.spare


def test_a_window_that_nobody_finds_runs_in_the_memory_that_it_let_go() -> None:
    it = TinyTables(2 * 16, [LayerGroup(1, KeepAll()), LAST_4])
    private = it.kv.open(None)
    text = "aaaa bbbb cccc dddd eeee ffff gggg hhhh"
    shared, alone = it.begin(text), it.begin(text, private)
    used: dict[BlockTable, set[int | None]] = {shared: set(), alone: set()}
    for table in (shared, alone):
        for end in range(1, 33):
            assert it.reserve(table, end)
            used[table].update(table.blocks[1])
            it.commit(table, text.replace(" ", "")[:end])
    assert len(used[shared] - {None}) == 8
    assert len(used[alone] - {None}) == 2
    assert it.nodes(text + "x", private)[-1][1] == alone.blocks[1][-1]
    assert it.found_and_why(text + "x", private) == (32, None)  # where it is, it goes on from
    assert it.found_and_why("aaaa bbbb x", private) == (0, CacheReason.WINDOW)
    assert it.found("aaaa bbbb x") == 8
    it.drop(alone)
    it.kv.close(private)
    it.check()
    assert it.pool.num_evictable == 7  # of the other


def test_what_a_branch_holds_or_left_at_its_end_is_found_though_another_lets_it_go() -> None:
    it = TinyTables(12, [LAST_4], max_rows=16)
    private = it.kv.open(None)
    first = it.begin("aaaa bbbb cccc", private)
    it.run(first, "aaaa")
    second, third = it.fork(first), it.fork(first)
    it.run(first, "aaaa bbbb c")
    assert it.pool.is_cached(BlockId(0))
    it.drop(second)
    it.run(third, "aaaa xxxx y")
    assert (it.pool.is_cached(BlockId(0)), list(it.pool.spare)) == (True, [])
    assert it.found("aaaa") == 0
    assert it.match("aaaa y", private).num_tokens == 4


def test_the_end_of_a_prompt_is_kept_for_the_branches_of_a_request_that_is_alone() -> None:
    it = TinyTables(12, [LAST_4], max_rows=16)
    private = it.kv.open(None)
    table = it.begin(TEXT, private, num_prompt=8)
    it.run(table, TEXT)
    assert (list(it.order), list(it.pool.spare), it.pool.num_empty) == ([1], [], 12 - 3)
    assert it.match("aaaa bbbb x", private).num_tokens == 8
