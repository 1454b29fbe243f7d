"""Which blocks tables share, who copies before it writes, and what is found afterwards: stories
with exact block ids."""

from __future__ import annotations

import pytest

from octavo.kv_cache.groups import BlockId
from tests.kv_cache.tiny_tables import TinyTables


def test_a_prefix_is_shared_then_survives_free_then_is_evicted() -> None:
    it = TinyTables(6)
    first = it.admit("aaaa bbbb cccc d")
    assert (first.blocks[0], first.num_stored) == ([0, 1, 2, 3], 13)
    second = it.begin("aaaa bbbb x")
    assert (second.blocks[0], second.num_stored) == ([0, 1], 8)  # shared while they are held
    assert it.run(second, "aaaa bbbb x") == []
    assert second.blocks[0] == [0, 1, 4]
    assert [it.pool.num_holders(BlockId(b)) for b in range(6)] == [2, 2, 1, 1, 1, 0]
    it.drop(first)  # 3 was never named: it is empty. What the second holds stays held
    assert (it.pool.num_empty, list(it.order), it.pool.num_held) == (2, [2], 3)
    it.end(second, "aaaa bbbb x")
    assert (it.pool.num_empty, list(it.order)) == (2, [2, 4, 1, 0])
    # A hit on blocks that nobody holds; they go to the end of the order when freed again.
    third = it.admit("aaaa bbbb cccc")
    assert (third.blocks[0], list(it.order)) == ([0, 1, 2], [4])
    it.drop(third)
    assert list(it.order) == [4, 2, 1, 0]
    # The empty blocks go first, the last freed before it, then the least recently used: tails.
    assert it.admit("eeee ffff gggg hhhh").blocks[0] == [3, 5, 4, 2]
    assert (it.pool.num_evicted, it.found("aaaa bbbb cccc"), it.found("aaaa bbbb x")) == (2, 8, 8)


def test_a_prompt_found_whole_writes_nothing() -> None:
    """Its last token runs again for its logits. All its slots are stored, so the row only reads:
    no block is taken and none is copied."""
    it = TinyTables(3)
    it.admit("aaaa bbbb")
    again = it.begin("aaaa bbbb")
    assert (again.blocks[0], again.num_stored) == ([0, 1], 8)
    assert it.reserve(again, 8)
    assert (again.blocks[0], again.copies, it.kv.room) == ([0, 1], [], 1)
    it.commit(again, "aaaa bbbb")
    assert it.run(again, "aaaa bbbb c") == []
    assert again.blocks[0] == [0, 1, 2]


def test_rows_that_run_again_take_nothing_back_from_what_is_stored() -> None:
    """A step that broke off is made up for from an earlier row on: what is in the blocks stays."""
    it = TinyTables(3)
    table = it.admit("aaaa bbbb c")
    it.commit(table, "aaaa b")
    assert (table.num_stored, table.node.end) == (9, 8)
    assert it.run(table, "aaaa bbbb cd") == []
    assert table.blocks[0] == [0, 1, 2]


def test_a_prompt_that_diverges_inside_a_block_copies_it() -> None:
    it = TinyTables(4)
    first = it.admit("aaaa bbcd")
    second = it.begin("aaaa bbxy z")
    assert (second.blocks[0], second.num_stored) == ([0, 1], 6)
    assert it.run(second, "aaaa bbxy z") == [(1, 3)]  # the last of those taken holds the copy
    assert (first.blocks[0], second.blocks[0]) == ([0, 1], [0, 3, 2])
    assert it.kv.counts().blocks_copied == 1
    assert [it.pool.num_holders(BlockId(b)) for b in range(4)] == [2, 1, 1, 1]
    assert (it.found("aaaa bbcd"), it.found("aaaa bbxy")) == (8, 8)


@pytest.mark.parametrize("text", ["axyz", "abxy", "abcx"])
def test_the_source_of_a_copy_is_held_until_the_copy_is_made(text: str) -> None:
    it = TinyTables(3)
    it.drop(it.admit("abcd"))
    table = it.begin(text)
    assert it.reserve(table, 4)
    assert (table.blocks[0], table.copies) == ([1], [(0, 1)])
    assert it.pool.num_holders(BlockId(0)) == 1
    it.kv.commit_transfers()
    it.check()
    assert (table.copies, it.pool.num_holders(BlockId(0)), it.found("abcd")) == ([], 0, 4)


def test_of_three_forks_two_copy_and_the_last_writes_in_place() -> None:
    it = TinyTables(6)
    one = it.admit("aaaa bb")
    two, three = it.fork(one), it.fork(one)
    assert two.blocks[0] == three.blocks[0] == [0, 1]
    assert [it.pool.num_holders(BlockId(b)) for b in (0, 1)] == [3, 3]
    for table in (one, two, three):
        assert it.reserve(table, 7)
    assert [t.blocks[0] for t in (one, two, three)] == [[0, 2], [0, 3], [0, 1]]
    assert [t.copies for t in (one, two, three)] == [[(1, 2)], [(1, 3)], []]
    for table, text in ((one, "aaaa bbx"), (two, "aaaa bby"), (three, "aaaa bbz")):
        it.commit(table, text)
    assert [it.pool.num_holders(BlockId(b)) for b in range(4)] == [3, 1, 1, 1]
    assert it.kv.counts().blocks_copied == 2


def test_forks_at_the_end_of_a_block_share_it_and_copy_nothing() -> None:
    it = TinyTables(4)
    one = it.admit("aaaa")
    two = it.fork(one)
    for table, text in ((one, "aaaa x"), (two, "aaaa y")):
        assert it.run(table, text) == []
    assert (one.blocks[0], two.blocks[0]) == ([0, 1], [0, 2])


def test_a_fork_does_not_share_blocks_that_are_only_reserved() -> None:
    it = TinyTables(4)
    one = it.admit("aaaa bb")
    assert it.reserve(one, 10)
    assert one.blocks[0] == [0, 1, 2]
    assert it.fork(one).blocks[0] == [0, 1]


def test_blocks_that_two_computed_at_once_become_one_when_they_are_named() -> None:
    it = TinyTables(4)
    one, two = it.begin("aaaa b"), it.begin("aaaa c")
    assert it.reserve(one, 5)
    assert it.reserve(two, 5)
    assert (one.blocks[0], two.blocks[0]) == ([0, 1], [2, 3])
    it.commit(one, "aaaa b")
    it.commit(two, "aaaa c")
    assert (one.blocks[0], two.blocks[0]) == ([0, 1], [0, 3])
    assert (it.pool.num_holders(BlockId(0)), it.pool.num_empty) == (2, 1)


def test_without_room_nothing_is_taken() -> None:
    it = TinyTables(3)
    one = it.admit("aaaa bb")
    two = it.fork(one)
    assert not it.reserve(two, 9)  # a copy, and one more block
    assert (two.blocks[0], two.copies, it.kv.room) == ([0, 1], [], 1)
    assert it.reserve(two, 8)
    assert (two.blocks[0], two.copies) == ([0, 2], [(1, 2)])


def test_the_number_of_missing_blocks_counts_what_nobody_holds() -> None:
    it = TinyTables(6)
    one = it.admit("aaaa bbbb cc")
    match = it.match("aaaa bbbb dddd e")
    assert it.kv.need(13, match) == 2  # of four blocks two are held by the first
    it.drop(one)
    assert it.kv.need(13, match) == 4  # found, but they count among the free
    partial = it.match("aaaa bx")
    assert (partial.num_tokens, it.kv.need(6, partial)) == (5, 2)
