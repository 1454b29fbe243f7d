"""Tokens that are taken back, or never accepted: stories with exact block ids."""

from __future__ import annotations

import pytest

from octavo.kv_cache.groups import KeepEnds, KeepLast, LayerGroup
from tests.engine.interrupt import fault
from tests.kv_cache.tiny_tables import TinyTables, tokens_of

ALL, LAST_4 = LayerGroup(1), LayerGroup(1, KeepLast(4))


def test_tokens_taken_back_are_found_no_more_and_their_slots_are_written_again() -> None:
    it = TinyTables(8)
    table = it.admit("aaaa bbbb cccc d")
    it.truncate(table, 6)
    assert (table.blocks, table.num_stored, table.node.end) == (([0, 1],), 6, 4)
    assert (it.found("aaaa bbbb"), it.pool.num_empty) == (4, 6)
    assert it.run(table, "aaaa bbxx yy") == []
    assert (table.blocks, it.found("aaaa bbxx")) == (([0, 1, 2],), 8)


def test_what_another_table_holds_is_not_taken_back() -> None:
    it = TinyTables(8)
    table = it.admit("aaaa bbbb cccc")
    other = it.begin("aaaa bbbb x")
    it.truncate(table, 6)
    assert it.found("aaaa bbbb cccc") == 8
    assert it.run(table, "aaaa bbxx") == [(1, 2)]
    assert (table.blocks, other.blocks) == (([0, 2],), ([0, 1],))


def test_what_was_known_before_is_not_taken_back() -> None:
    it = TinyTables(8)
    it.drop(it.admit("aaaa bbbb cccc"))
    table = it.admit("aaaa bbbb cccc dddd")
    it.truncate(table, 4)
    assert (table.blocks, list(it.order)) == (([0],), [2, 1])
    assert it.found("aaaa bbbb cccc dddd") == 12


def test_a_node_whose_hole_was_filled_is_still_another_s() -> None:
    it = TinyTables(8, [ALL, LAST_4], max_rows=16)
    it.drop(it.admit("aaaa bbbb"))
    it.evict(9)
    assert it.found("aaaa bbbb xx") == 4
    table = it.admit("aaaa bbbb")
    assert it.found("aaaa bbbb xx") == 8
    it.truncate(table, 7)
    assert (table.num_stored, it.found("aaaa bbbb xx")) == (7, 8)


def test_tokens_are_not_taken_back_beyond_what_a_window_let_go() -> None:
    it = TinyTables(8, [ALL, LAST_4], max_rows=16)
    table = it.admit("aaaa bbbb cccc")
    assert table.blocks == ([0, 1, 2], [None, None, 10])
    assert [n for n in range(14) if table.can_shrink(n)] == [0, 11, 12]
    assert [n for n in range(14) if table.can_run(n)] == [11, 12]
    with pytest.raises(AssertionError, match="were let go"):
        it.truncate(table, 10)
    it.truncate(table, 11)
    assert it.run(table, "aaaa bbbb cccx y") == []
    assert table.blocks == ([0, 1, 2, 3], [None, None, 10, 11])
    assert it.found("aaaa bbbb cccc") == 11


def test_a_draft_that_is_rejected_was_never_findable() -> None:
    it = TinyTables(8, [ALL, LAST_4])
    table = it.admit("aaaa bb")
    assert it.reserve(table, 10)
    it.kv.commit(table, tokens_of("aaaa bbbb cc"), 7)  # three drafts are rejected
    it.check()
    assert (table.num_stored, it.found("aaaa bbbb")) == (7, 4)
    assert it.run(table, "aaaa bbbx") == []
    assert (table.blocks, it.found("aaaa bbbx")) == (([0, 1, 2], [None, 9, 10]), 8)


def test_after_one_that_was_broken_off_nothing_stands_for_blocks_that_were_let_go() -> None:
    """The table is as long as before, and its node is not."""
    it = TinyTables(8, [LayerGroup(1, KeepEnds(4, 1))], max_rows=16)
    table = it.admit("aaaa bbbb cccc d")
    assert table.blocks == ([0, None, None, 3],)
    with (
        fault(it.kv, "_sharing.take_back", after=True),
        pytest.raises(RuntimeError, match="injected"),
    ):
        it.kv.truncate(table, 4)
    assert (table.num_stored, table.node.end) == (13, 4)
    it.kv.recover(it.tables)
    it.run(table, "aaaa bbbb cccc dd")
    it.end(table, "aaaa bbbb cccc dd")
    assert it.found("aaaa bbbb") == 4
