"""What a table leaves behind at its end, and what is done without room: partial blocks, blocks that
leave the index, pins, private roots, waste, recovery."""

from __future__ import annotations

import pytest

from octavo.kv_cache.cache import Transfer
from octavo.kv_cache.cost_aware import CostAware
from octavo.kv_cache.groups import BlockId, KeepLast, LayerGroup
from octavo.records import CacheReason
from tests.kv_cache.tiny_tables import TinyTables, tokens_of


def test_the_next_turn_of_a_chat_finds_the_answer_and_goes_on_in_its_last_block() -> None:
    """Prompt "aaaa b", answer "cdefg": all ten tokens are found, three of them in a partial block
    which the next turn fills in place. Its node is extended: the shorter name is gone."""
    it = TinyTables(4)
    first = it.admit("aaaa b")
    it.run(first, "aaaa bcde fg")
    it.end(first, "aaaa bcde fg")
    assert (it.pool.num_evictable, it.found("aaaa bcde fgh")) == (3, 10)
    second = it.begin("aaaa bcde fghi jk")
    assert (second.blocks[0], second.num_stored) == ([0, 1, 2], 10)
    assert it.run(second, "aaaa bcde fghi jk") == []
    assert second.blocks[0] == [0, 1, 2, 3]
    node = second.node
    assert (node.tokens, node.end, node.blocks) == (tokens_of("fghi"), 12, [2])
    it.end(second, "aaaa bcde fghi jk")
    assert it.found("aaaa bcde fghi jkl") == 14
    assert it.pool.num_evictable == 4


def test_two_turns_that_go_on_differently_from_one_partial_block() -> None:
    """While the block's name is "fg", who writes its third slot needs no copy if nobody else reads
    it; the second reader does."""
    it = TinyTables(5)
    it.end(it.admit("aaaa fg"), "aaaa fg")
    left, right = it.begin("aaaa fgx"), it.begin("aaaa fgy")
    assert it.run(left, "aaaa fgx") == [(1, 2)]  # both hold block 1
    assert it.run(right, "aaaa fgy") == []
    assert (left.blocks[0], right.blocks[0]) == ([0, 2], [0, 1])


def test_a_partial_block_that_a_longer_one_covers_gets_no_name() -> None:
    it = TinyTables(4)
    it.admit("aaaa bbbb")
    short = it.admit("aaaa bb")  # found, in the first's block
    it.end(short, "aaaa bb")
    other = it.begin("aaaa")
    it.run(other, "aaaa bb")  # computed a second time, in block 2
    assert other.blocks[0] == [0, 2]
    it.end(other, "aaaa bb")
    assert it.pool.num_empty == 2
    assert it.found("aaaa bbbb") == 8
    it.end(it.admit("aaaa bx"), "aaaa bx")  # not covered
    assert (it.found("aaaa bbbb"), it.found("aaaa bx")) == (8, 6)


def test_the_end_of_a_table_whose_copy_was_not_made_names_nothing() -> None:
    it = TinyTables(4)
    one = it.admit("aaaa bb")
    two = it.fork(one)
    assert it.reserve(two, 7)
    assert two.copies == [(1, 2)]
    it.end(two, "aaaa bb")
    assert it.index.num_named(BlockId(2)) == 0
    assert (it.pool.num_holders(BlockId(1)), it.pool.num_empty) == (1, 2)


def test_the_end_of_a_table_names_what_a_commit_that_was_broken_off_did_not() -> None:
    """Ctrl-C came when the rows of three blocks had run and one of them was named. Its request
    ended next, with a tail longer than a block: an assertion failed, and so at every later step."""
    it = TinyTables(4)
    table = it.begin("aaaa bbbb cccc d")
    assert it.reserve(table, 13)
    it.commit(table, "aaaa")
    table.num_stored = 13
    it.end(table, "aaaa bbbb cccc d")
    assert it.found("aaaa bbbb cccc d") == 13


def test_without_room_for_a_copy_a_block_that_only_the_index_shares_is_taken_over() -> None:
    """Three blocks: the prompt needs all of them. Its second block is half another's, which it
    overwrites; that one, and what followed it, is forgotten, as if evicted."""
    it = TinyTables(3)
    it.end(it.admit("aaaa bbbb cccc"), "aaaa bbbb cccc")
    table = it.begin("aaaa bbxx yyyy")
    assert (table.blocks[0], table.num_stored) == ([0, 1], 6)
    assert it.run(table, "aaaa bbxx yyyy") == []
    assert table.blocks[0] == [0, 1, 2]
    assert (it.found("aaaa bbbb"), it.found("aaaa bbxx yyyy")) == (6, 12)
    assert it.pool.num_evicted == 1
    assert it.index.was_evicted(it.match("aaaa").nodes[0], tokens_of("bbbb"))


def test_a_block_that_another_table_reads_is_never_taken_over() -> None:
    it = TinyTables(2)
    reader = it.admit("aaaa bbbb")
    table = it.begin("aaaa bbxx")
    assert not it.reserve(table, 8)
    assert (table.blocks[0], reader.blocks[0], it.found("aaaa bbbb")) == ([0, 1], [0, 1], 8)


def test_unfilled_slots_are_counted_once_for_each_block() -> None:
    it = TinyTables(8)
    one = it.admit("aaaa bb")
    assert it.kv.slots_unfilled == 2  # 4 + 2 of 8
    it.fork(one)
    assert it.kv.slots_unfilled == 2  # the same blocks
    assert it.reserve(one, 13)  # blocks [0, copy, new, new]: 6 tokens of 16; the fork's 2 of 4
    assert it.kv.slots_unfilled == 2 + 4 + 4 + 2
    it.admit("eeee ffff")
    assert it.kv.slots_unfilled == 12
    it.begin("eeee ff")  # its second block is partly matched, and full
    assert it.kv.slots_unfilled == 12


def test_of_a_block_that_two_tables_fill_unequally_the_fuller_one_counts() -> None:
    it = TinyTables(2)
    it.end(it.admit("aaaa fg"), "aaaa fg")
    it.run(it.begin("aaaa fgh"), "aaaa fgh")  # in place: its name is "fg" until it is whole
    it.begin("aaaa fgx")
    assert [t.num_stored for t in it.tables] == [7, 6]
    assert it.kv.slots_unfilled == 1
    it.drop(it.tables[0])
    assert it.kv.slots_unfilled == 2


def test_a_block_costs_what_its_own_tokens_cost_where_they_stand() -> None:
    """What eviction weighs: rows [begin, end), deeper ones dearer; the same after a recovery."""
    asked: list[tuple[int, int]] = []

    def cost(begin: int, end: int) -> float:
        asked.append((begin, end))
        return float(end - begin)

    it = TinyTables(4, cost=cost)
    it.end(it.admit("aaaa bbbb cc"), "aaaa bbbb cc")
    assert asked == [(0, 4), (4, 8), (8, 10)]
    asked.clear()
    it.kv.recover(it.tables)
    it.check()
    assert asked == [(0, 4), (4, 8), (8, 10)]


def test_a_block_that_is_filled_up_costs_what_it_holds_then() -> None:
    order = CostAware()
    it = TinyTables(3, order=order)
    costs = []
    for text in ("aaaa b", "aaaa bbbb c"):
        table = it.begin(text)
        it.run(table, text)
        blocks = list(table.blocks[0])
        it.end(table, text)
        costs.append([order._blocks[b].cost for b in blocks if b is not None])
    assert costs == [[4, 1], [4, 4, 1]]


def test_closing_a_private_root_forgets_all_under_it_and_nothing_else() -> None:
    it = TinyTables(6)
    it.end(it.admit("aaaa b"), "aaaa b")
    private = it.kv.open(None)
    assert private not in (it.root, it.kv.open(None))
    assert it.match("aaaa bbbb", private).num_tokens == 0
    table = it.begin("aaaa bbbb", private)
    it.run(table, "aaaa bbbb c")
    it.end(table, "aaaa bbbb c")
    assert (it.pool.num_evictable, it.pool.num_empty) == (5, 1)
    it.kv.close(private)
    it.check()
    assert (it.pool.num_evictable, it.pool.num_empty, it.found("aaaa b")) == (2, 4, 5)


@pytest.mark.parametrize("is_closed", [False, True])
def test_of_a_prefix_that_was_evicted_nothing_is_left_when_what_followed_goes(
    is_closed: bool,
) -> None:
    """Of a root that one request has alone, what its window leaves goes by itself."""
    it = TinyTables(3, [LayerGroup(1, KeepLast(2))])
    root = it.kv.open(None) if is_closed else it.root
    table = it.begin("aaaa bbbb", root)
    for text in ("aaaa", "aaaa bbbb"):
        it.run(table, text)
    if not is_closed:
        it.evict(0)
    assert (table.blocks, it.nodes("aaaa bbbb c", root)) == (([None, 1],), [[None], [1]])
    if is_closed:
        it.drop(table)
        it.kv.close(root)
        it.check()
    else:
        it.truncate(table, 7)
    assert it.found_and_why("aaaa b", root) == (0, CacheReason.EVICTED)
    assert not root.children


def test_idle_memory_goes_back_in_its_time() -> None:
    it = TinyTables(4)
    assert it.kv.reclaim(empty_for=5.0, cached_for=60.0) == ([], None)
    table = it.admit("aaaa b")
    it.now = 10.0
    it.drop(table)  # block 1 was never named: it is empty
    assert it.kv.reclaim(empty_for=5.0, cached_for=60.0) == ([], 5.0)
    it.now = 15.0
    assert it.kv.reclaim(empty_for=5.0, cached_for=60.0) == ([Transfer("release", 0, 1)], 55.0)
    it.now = 71.0
    assert it.kv.reclaim(empty_for=5.0, cached_for=60.0) == ([Transfer("release", 0, 0)], None)
    assert (it.found("aaaa"), it.kv.counts().blocks_evicted) == (0, 1)
    it.check()


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_recovery_frees_what_no_table_holds_and_keeps_what_can_be_found(lost: int) -> None:
    """Three tables; one is lost with all its holds, which nobody will ever give back."""
    it = TinyTables(8)
    texts = ["aaaa bbbb c", "aaaa bb", "eeee"]
    for text in texts:
        it.admit(text)
    it.end(it.admit("aaaa x"), "aaaa x")
    assert it.kv.pins.add(it.root, tokens_of("eeee"), 1).num_tokens == 4
    held = it.pool.num_held
    it.pool.allocate([1])  # and a block that was taken for nobody
    gone = it.tables.pop(lost)
    it.kv.recover(it.tables)
    it.check()
    kept = {b for t in it.tables for b in t.blocks[0]} | {3}
    assert it.pool.num_held == len(kept)
    assert held - it.pool.num_held == len(set(gone.blocks[0]) - kept)
    assert [it.found(t) for t in ("aaaa bbbb", "aaaa x", "eeee")] == [8, 5, 4]
    for table in list(it.tables):
        it.drop(table)
    assert it.pool.num_held == 1


def test_recovery_takes_back_what_was_reserved_and_copies_that_were_not_made() -> None:
    it = TinyTables(5)
    one = it.admit("aaaa bb")
    two = it.fork(one)
    assert it.reserve(two, 9)
    assert it.pool.num_held == 4
    one.copies.append((BlockId(1), BlockId(4)))  # noted, but its block was never put in the table
    it.kv.recover(it.tables)
    it.check()
    assert (one.blocks, two.blocks, one.copies, two.copies) == (([0, 1],), ([0, 1],), [], [])
    assert it.pool.num_holders(BlockId(1)) == 2
    assert len(it.run(two, "aaaa bbx")) == 1
    assert it.pool.num_holders(BlockId(1)) == 1


def test_recovery_from_a_broken_eviction_still_evicts_children_first() -> None:
    """The block that was being evicted had left the order already. As the youngest it would have
    outlived its parent, whose eviction is then a bug."""
    it = TinyTables(3)
    it.end(it.admit("aaaa bbbb cccc"), "aaaa bbbb cccc")
    it.now = 5.0
    del it.pool._free_since[it.order.pop()]  # and then an exception
    it.kv.recover([])
    it.check()
    assert list(it.order) == [2, 1, 0]
    assert it.admit("eeee ffff").blocks[0] == [2, 1]
