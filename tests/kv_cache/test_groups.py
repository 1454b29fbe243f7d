"""Layer groups that keep different positions, under one budget: stories with exact block ids.

Blocks of four tokens. The ids of the first group begin at 0, the second's where those end.
"""

from __future__ import annotations

from octavo.kv_cache.cache import Transfer
from octavo.kv_cache.groups import BlockId, KeepEnds, KeepLast, LayerGroup
from octavo.records import BlockEventKind, CacheReason
from tests.kv_cache.tiny_tables import TinyTables

ALL, LAST_4, LAST_6 = LayerGroup(1), LayerGroup(1, KeepLast(4)), LayerGroup(1, KeepLast(6))


def test_a_window_slides_and_what_it_leaves_stays_findable() -> None:
    """Window 6: after a commit at s tokens no row reads a block that ends at or before s - 5."""
    it = TinyTables(8, [LAST_6])
    table = it.begin("aaaa bbbb cccc d")
    for text, blocks in [
        ("aaaa", [0]),
        ("aaaa bbbb", [0, 1]),  # the row at 8 reads from 3 on
        ("aaaa bbbb c", [None, 1, 2]),
        ("aaaa bbbb cccc", [None, 1, 2]),
        ("aaaa bbbb cccc d", [None, None, 2, 3]),
    ]:
        it.run(table, text)
        assert table.blocks == (blocks,)
    assert it.evictable == [0, 1]
    assert it.kv.view(table) == ([0, 0, 2, 3],)
    assert [e.block for e in it.events if e.kind is BlockEventKind.LET_GO] == [0, 1]
    assert it.begin("aaaa bbbb x").blocks == ([0, 1],)
    assert it.begin("aaaa bbbb cccc x").blocks == ([None, 1, 2],)


def test_after_a_chunk_all_goes_that_its_last_row_is_past_the_tail_first() -> None:
    it = TinyTables(8, [ALL, LAST_4], max_rows=16)
    table = it.admit("aaaa bbbb cccc d")
    assert table.blocks == ([0, 1, 2, 3], [None, None, 10, 11])
    assert it.kv.view(table) == ([0, 1, 2, 3], [0, 0, 2, 3])
    assert it.evictable == [9, 8]
    assert it.kv.counts() == (16, 6, 2, 0, 0, 6, 2, 0, 0)
    assert it.kv.slots_unfilled == 6
    it.drop(table)
    assert it.evictable == [9, 8, 2, 10, 1, 0]  # the blocks of a place together
    assert it.pool.num_empty == 16 - 6


def test_a_prompt_found_whole_keeps_what_its_last_row_reads() -> None:
    it = TinyTables(4, [ALL, LAST_4], max_rows=16)
    it.drop(it.admit("aaaa bbbb"))
    table = it.begin("aaaa bbbb")
    assert table.blocks == ([0, 1], [None, 5])  # the row at 7 reads 4 to 7
    assert it.run(table, "aaaa bbbb") == []


def test_a_hit_is_limited_by_a_window_that_was_evicted_and_the_hole_is_filled_again() -> None:
    it = TinyTables(10, [ALL, LAST_4], max_rows=16)
    it.drop(it.admit("aaaa bbbb cccc dddd"))
    it.drop(it.admit("aaaa"))  # its block of the window is the most recent now
    assert it.evictable == [12, 11, 3, 13, 2, 1, 0, 10]
    other = it.begin("xxxx yyyy")
    assert it.reserve(other, 8)  # evicts two windows
    it.drop(other)
    assert it.evictable == [3, 13, 2, 1, 0, 10]
    assert it.nodes("aaaa bbbb cccc dddd") == [[0, 10], [1, None], [2, None], [3, 13]]
    # The last row needs the last block alone.
    assert it.found_and_why("aaaa bbbb cccc dddd e") == (16, None)
    assert it.found_and_why("aaaa bbbb cccc x") == (4, CacheReason.WINDOW)
    assert it.found_and_why("aaaa bbx") == (4, CacheReason.WINDOW)
    assert it.found_and_why("aaaa b") == (4, None)
    assert it.found_and_why("aaaa xx") == (4, CacheReason.DIVERGED)
    table = it.begin("aaaa bbbb cccc x")
    assert (table.blocks, table.num_stored) == (([0], [10]), 4)
    assert it.reserve(table, 13)
    assert table.blocks == ([0, 4, 5, 6], [10, 12, 13, 11])
    it.commit(table, "aaaa bbbb cccc x")
    assert table.blocks == ([0, 1, 2, 6], [None, None, 13, 11])
    assert it.nodes("aaaa bbbb cccc") == [[0, 10], [1, 12], [2, 13]]
    assert it.found_and_why("aaaa bbx") == (6, None)


def test_the_last_row_of_a_prompt_found_whole_has_the_window_that_it_reads() -> None:
    """Window 5: row 7 reads the first block; row 8, which would be next, does not."""
    it = TinyTables(4, [LayerGroup(1, KeepLast(5))])
    assert it.admit("aaaa bbbb").blocks == ([None, 1],)
    assert it.begin("aaaa bbbb").blocks == ([0, 1],)
    assert it.begin("aaaa bbbb c").blocks == ([None, 1],)


def test_a_part_that_lacks_a_window_is_no_hit() -> None:
    it = TinyTables(4, [ALL, LAST_4])
    it.end(it.admit("aaaa bb"), "aaaa bb")
    assert it.nodes("aaaa bbx") == [[0, 4]]
    it.evict(5)
    assert it.found_and_why("aaaa bbxxx") == (4, CacheReason.WINDOW)


def test_a_window_s_block_moves_from_a_part_to_the_whole_that_lacks_it() -> None:
    """A part is filled up in place while another table registers the same whole block and loses its
    window's block. The one of the part holds all its tokens, so it fills the hole."""
    it = TinyTables(12, [ALL, LAST_4])
    first = it.begin("aaaa bbbb")
    it.end(it.admit("aaaa bb"), "aaaa bb")
    second = it.begin("aaaa bbbb")
    assert (first.num_stored, second.blocks) == (0, ([0, 1], [12, 13]))
    it.run(first, "aaaa bbbb")
    assert first.blocks == ([0, 3], [None, 15])
    it.drop(first)
    it.evict(15)
    assert it.run(second, "aaaa bbbb") == []
    assert second.blocks == ([0, 3], [None, 13])
    assert it.nodes("aaaa bbbb x") == [[0, 12], [3, 13]]


def test_two_groups_that_keep_all_lose_a_block_together() -> None:
    """Evicting one block of a node makes the other one empty, and that is no eviction."""
    it = TinyTables(8, [ALL, ALL])
    it.drop(it.admit("aaaa bbbb"))
    assert it.evictable == [1, 9, 0, 8]
    table = it.admit("xxxx yyyy zz")
    assert table.blocks == ([2, 3, 4], [10, 9, 11])  # 9 was empty with memory: block 1 was evicted
    assert (it.kv.counts().blocks_evicted, it.found("aaaa bbbb")) == (1, 4)
    assert it.evictable == [0, 8]


def test_one_group_gives_its_memory_to_another_within_the_budget() -> None:
    """12 bytes, blocks of 1 and 3. The third block of the second group would be the 13th byte."""
    it = TinyTables(12, [LayerGroup(1), LayerGroup(3)])
    it.drop(it.admit("aaaa bbbb"))
    assert (it.kv.room, it.evictable) == (12, [1, 13, 0, 12])
    table = it.begin("xxxx yyyy")
    assert it.reserve(table, 8)
    assert table.blocks == ([2, 3], [13, 14])
    assert it.kv.transfers() == [Transfer("release", 0, 1)]
    assert (it.kv.room, it.kv.bytes_held([table])) == (4, 8)
    assert not it.reserve(table, 16)  # 8 bytes more
    assert it.reserve(table, 12)  # what is left
    assert table.blocks == ([2, 3, 0], [13, 14, 12])
    assert it.kv.transfers() == [Transfer("release", 0, 1)]
    it.kv.commit_transfers()
    assert it.kv.transfers() == []


def test_a_block_that_is_taken_again_before_its_release_is_not_released() -> None:
    it = TinyTables(12, [LayerGroup(1), LayerGroup(3)])
    it.drop(it.admit("aaaa bbbb"))
    table = it.begin("xxxx yyyy")
    assert it.reserve(table, 8)
    assert it.kv.transfers() == [Transfer("release", 0, 1)]
    it.drop(table)
    releases, _ = it.kv.reclaim(empty_for=0.0, cached_for=1.0)
    assert releases == [Transfer("release", *block) for block in ((0, 3), (0, 2), (1, 2), (1, 1))]
    table = it.begin("yyyy")
    assert it.reserve(table, 12)
    assert table.blocks == ([2, 3, 1], [13, 12, 14])
    assert it.kv.transfers() == [Transfer("release", 0, 0)]


def test_both_groups_copy_a_shared_block() -> None:
    it = TinyTables(12, [ALL, LAST_4], max_rows=16)
    one = it.admit("aaaa bbbb cc")
    two = it.fork(one)
    assert two.blocks == ([0, 1, 2], [None, 13, 14])
    assert it.reserve(one, 11)
    assert it.kv.transfers() == [Transfer("copy", 0, 2, 3), Transfer("copy", 1, 2, 3)]
    it.commit(one, "aaaa bbbb ccd")
    assert one.blocks == ([0, 1, 3], [None, None, 15])
    assert it.run(two, "aaaa bbbb cce") == []  # alone now
    assert two.blocks == ([0, 1, 2], [None, None, 14])
    assert it.kv.counts().blocks_copied == 2


def test_without_room_for_copies_the_blocks_of_both_groups_are_taken_over() -> None:
    it = TinyTables(6, [ALL, LAST_4], max_rows=16)
    it.end(it.admit("aaaa bbbb cccc"), "aaaa bbbb cccc")
    table = it.begin("aaaa bbxx yyyy")
    assert table.blocks == ([0, 1], [6, 7])
    assert it.reserve(table, 12)
    assert table.blocks == ([0, 1, 2], [6, 7, 8])
    assert it.kv.transfers() == []
    assert it.found("aaaa bbbb") == 4
    it.commit(table, "aaaa bbxx yyyy")
    assert it.found("aaaa bbxx yyyy") == 12


def test_what_a_table_takes_is_counted_in_bytes_by_group() -> None:
    """Blocks of 2 and of 3 bytes; of the second kind a step of 4 rows and a window of 6 touch 9
    positions: at most three blocks."""
    it = TinyTables(40, [LayerGroup(2), LayerGroup(3, KeepLast(6))], max_rows=4)
    assert it.kv.block_bytes == 5
    assert [it.kv.at_most(n) for n in (0, 1, 4, 8, 12, 16, 20, 40)] == [
        *(0, 5, 5, 10, 15),
        *(8 + 9, 10 + 9, 20 + 9),
    ]
    assert it.kv.at_most(40, shared=9) == 16 + 9
    assert it.kv.need(40) == 20 + 9
    table = it.admit("aaaa bbbb cccc d")
    assert table.blocks == ([0, 1, 2, 3], [None, None, 22, 23])
    assert it.kv.bytes_held([table]) == 8 + 6 == 40 - it.kv.room
    assert [it.kv.need_more(table, n) for n in (13, 16, 17, 40)] == [0, 0, 2 + 3, 12 + 3]
    match = it.match("aaaa bbbb cccc x")
    assert match.num_tokens == 12
    # The first group shares three blocks; the second one of two, the other is held by nobody.
    assert it.kv.need(13, match) == 2 + 6


def test_what_is_held_only_to_be_copied_takes_room_where_nobody_held_it() -> None:
    """The first block is read by another table in one group, and left behind in the other."""
    it = TinyTables(10, [ALL, LAST_4], max_rows=16)
    assert it.admit("aaaa bbbb c").blocks == ([0, 1, 2], [None, 11, 12])
    match = it.match("aaxx")
    assert (match.num_tokens, it.kv.need(4, match)) == (2, 2 + 1)
    table, room = it.begin("aaxx"), it.kv.room
    assert it.reserve(table, 4)
    assert (it.kv.transfers(), room - it.kv.room) == ([("copy", 0, 0, 3), ("copy", 1, 0, 3)], 2)
    assert (it.kv.need(4, it.match("aayy")), room) == (2, 5 - 1)  # both are held by now


def test_a_rule_may_keep_the_beginning_too() -> None:
    it = TinyTables(10, [LayerGroup(1, KeepEnds(4, window=2))], max_rows=8)
    assert it.kv.at_most(40) == 1 + 3
    table = it.admit("aaaa bbbb cccc d")
    assert table.blocks == ([0, None, None, 3],)
    assert it.evictable == [2, 1]
    assert it.kv.can_run(table, 12) is False
    it.drop(table)
    assert it.begin("aaaa bbbb cccc").blocks == ([0, None, 2],)


def test_a_window_smaller_than_a_block_goes_on_after_its_past_was_evicted() -> None:
    """The last whole block is let go before the next is whole, and evicted, and with it its node;
    what follows is registered under a new node of the same tokens."""
    it = TinyTables(3, [LayerGroup(1, KeepLast(2))])
    table = it.begin("aaaa bbbb")
    for text in ("aaaa", "aaaa bb"):
        it.run(table, text)
    assert (table.blocks, it.evictable) == (([None, 1],), [0])
    other = it.begin("xxxx yyyy")
    assert it.reserve(other, 8)  # block 0 goes
    assert it.kv.counts().blocks_evicted == 1
    it.commit(table, "aaaa bbbb")
    assert table.node.end == 8
    assert it.nodes("aaaa bbbb c") == [[None], [1]]
    assert it.found_and_why("aaaa bbbb c") == (8, None)


def test_a_part_whose_past_was_evicted_gets_no_name_beside_a_longer_one() -> None:
    it = TinyTables(4, [LayerGroup(1, KeepLast(2))])
    table = it.begin("aaaa bb")
    for text in ("aaaa", "aaaa bb"):
        it.run(table, text)
    short = it.fork(table)
    it.evict(0)
    assert it.run(table, "aaaa bbbb") == [(1, 0)]
    it.end(short, "aaaa bb")
    assert [it.pool.is_cached(BlockId(b)) for b in range(4)] == [True, False, False, False]


def test_events_say_what_happened_to_which_block() -> None:
    it = TinyTables(4, [ALL, LAST_4])

    def told() -> list[str]:
        events, it.events[:] = list(it.events), []
        return [f"{event.kind} {event.group}.{event.block}" for event in events]

    it.end(it.admit("aaaa bb"), "aaaa bb")
    assert told() == [
        *("allocate 0.0", "allocate 0.1", "allocate 1.0", "allocate 1.1"),
        *("cache 0.0", "cache 1.0", "cache 0.1", "cache 1.1"),
    ]
    table = it.admit("aaaa bbbb")
    assert told() == ["extend 0.1", "extend 1.1", "let-go 1.0"]
    it.truncate(table, 7)
    assert told() == ["truncate 0.1", "truncate 1.1"]
    it = TinyTables(12, [ALL, LAST_4])
    it.end(it.admit("aaaa bb"), "aaaa bb")
    one, two = it.begin("aaaa bbcc"), it.begin("aaaa bbcc")
    del it.events[:]
    it.run(one, "aaaa bbcc")
    assert told() == [
        *("allocate 0.2", "allocate 1.2", "copy 0.2", "copy 1.2"),
        *("cache 0.2", "cache 1.2", "let-go 1.0"),
    ]
    it.run(two, "aaaa bbcc")  # in place, and then the same tokens are known
    assert told() == ["share 0.2", "share 1.2", "let-go 1.0"]
    it = TinyTables(4, [ALL, LAST_4])
    it.drop(it.admit("aaaa bbbb"))
    del it.events[:]
    table = it.begin("aaxx")
    it.run(table, "aaxx yyyy")
    assert told() == [
        *("evict 0.1", "take-over 0.0", "allocate 0.1", "allocate 1.1"),
        *("cache 0.0", "cache 1.0", "cache 0.1", "cache 1.1", "let-go 1.0"),
    ]
