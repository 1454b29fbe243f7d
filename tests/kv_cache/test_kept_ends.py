"""Which blocks that a window left behind are the last to go: those that rows read which go on where
a prompt ended, where others parted from it, or where an answer ended."""

from __future__ import annotations

from octavo.kv_cache.groups import KeepAll, KeepLast, LayerGroup
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
