"""Pins, as stories with exact ids. `test_cache_machine` makes and gives them up at random."""

from __future__ import annotations

from octavo.kv_cache.groups import BlockId, KeepLast, LayerGroup
from octavo.records import Pin
from tests.kv_cache.tiny_tables import TinyTables, tokens_of


def pinned(it: TinyTables, text: str, most: int) -> Pin:
    pin = it.kv.pins.add(it.root, tokens_of(text), most)
    it.check()
    return pin


def test_pins_hold_blocks_under_a_budget_of_bytes_of_distinct_blocks() -> None:
    it = TinyTables(6)
    it.drop(it.admit("aaaa bbbb cccc dddd"))
    two, three = pinned(it, "aaaa bbbb", 3), pinned(it, "aaaa bbbb cccc", 3)
    assert [pin.num_tokens for pin in (two, three)] == [8, 12]
    assert pinned(it, "aaaa bbbb cccc dddd", 3).num_tokens == 0  # a fourth: nothing is changed
    assert (it.kv.pins.num_bytes, it.kv.pins.holds) == (3, {0: 2, 1: 2, 2: 1})
    assert [it.pool.num_holders(BlockId(b)) for b in range(4)] == [2, 2, 1, 0]
    assert it.pool.allocate([4]) is None  # two are empty and one is evictable
    assert it.kv.pins.remove(three)
    assert (it.kv.counts().blocks_pinned, it.evictable) == (2, [3, 2])
    assert it.kv.pins.remove(two)
    assert not it.kv.pins.remove(two)
    it.check()
    assert (it.kv.counts().blocks_pinned, it.kv.pins.num_bytes) == (0, 0)
    assert it.evictable == [3, 2, 1, 0]


def test_a_budget_of_none_pins_none() -> None:
    it = TinyTables(2)
    it.drop(it.admit("aaaa"))
    assert pinned(it, "aaaa", 0).num_tokens == 0
    assert it.evictable == [0]


def test_one_owner_pins_so_many_bytes_beside_those_of_others() -> None:
    it = TinyTables(8)
    it.drop(it.admit("aaaa bbbb cccc"))
    it.drop(it.admit("dddd eeee"))

    def add(owner: str, text: str, most: int = 6) -> Pin:
        tokens = tokens_of(text)
        return it.kv.pins.add(it.root, tokens, most, owner=owner, most_of_owner=2)

    first = add("ann", "aaaa bbbb")
    assert first.num_tokens == 8
    assert add("ann", "aaaa").num_tokens == 4  # the same block
    over = add("ann", "aaaa bbbb cccc")
    assert over.why_not == "12 tokens more would be pinned than one of several callers may"
    assert add("bob", "dddd eeee").num_tokens == 8
    assert add("bob", "aaaa").num_tokens == 0
    assert add("cid", "aaaa cccc", 4).why_not is None  # one that is pinned already
    assert add("cid", "aaaa bbbb cccc", 4).why_not == (
        "12 tokens more would be pinned than memory is set aside for"
    )
    it.kv.pins.remove(first)
    it.check()
    assert add("ann", "dddd").num_tokens == 4  # instead


def test_what_no_row_behind_the_pinned_tokens_reads_is_not_held() -> None:
    it = TinyTables(12, [LayerGroup(1), LayerGroup(2, KeepLast(4))], max_rows=16)
    it.drop(it.admit("aaaa bbbb cccc"))
    assert pinned(it, "aaaa bbbb cccc", 99).num_tokens == 12
    assert it.kv.pins.num_bytes == 3 * 1 + 1 * 2


def test_after_an_exception_the_pins_are_those_that_were_made() -> None:
    it = TinyTables(6)
    it.drop(it.admit("aaaa bbbb"))
    pinned(it, "aaaa", 9)
    it.pool.hold([BlockId(0), BlockId(1)])  # for a pin that was broken off
    it.kv.recover([])
    it.check()
    assert (it.kv.pins.holds, it.kv.pins.num_bytes) == ({0: 1}, 1)
