"""Names of evicted blocks in the prefix index: what is told from never seen, and for how long."""

from __future__ import annotations

import gc
import weakref

from octavo.kv_cache.groups import BlockId
from tests.kv_cache.tiny_tables import TinyTables, namespace, new_index, tokens_of


def test_evicted_is_told_from_never_seen() -> None:
    it = TinyTables(3)
    it.end(it.admit("0000 1111 22"), "0000 1111 22")
    other = it.begin("xxxx yyyy")
    assert it.reserve(other, 8)
    assert other.blocks[0] == [2, 1]
    index, first = it.index, it.match("0000").nodes[0]
    assert index.was_evicted(first, tokens_of("1111 2"))
    assert index.was_evicted(first, list(tokens_of("1111")))
    assert not index.was_evicted(first, tokens_of("1112"))
    assert not index.was_evicted(first, tokens_of("111"))
    assert not index.was_evicted(first, ())
    # With the whole block back, the part that followed it is still remembered, longer texts too.
    second = index.register(first, tokens_of("1111"), [BlockId(1)])
    assert index.was_evicted(second, tokens_of("2233"))
    assert index.was_evicted(second, tokens_of("22"))
    assert not index.was_evicted(second, tokens_of("2333"))
    assert not index.was_evicted(second, tokens_of("2"))


def test_a_whole_block_that_goes_later_does_not_make_a_part_forgotten() -> None:
    """Beside whole blocks the last part that went is known, however many whole ones follow it."""
    index, root = new_index()
    index.register(root, (1, 1), [BlockId(0)])
    index.register(root, (2, 2, 2, 2), [BlockId(1)])
    index.forget(BlockId(0))
    index.forget(BlockId(1))
    assert index.was_evicted(root, (1, 1, 5))
    assert index.was_evicted(root, (2, 2, 2, 2))


def test_names_of_evicted_blocks_outlive_their_root_but_not_their_tenant() -> None:
    index, _ = new_index()
    index.register(index.root(namespace("alice")), (0,) * 4, [BlockId(0)])
    index.forget(BlockId(0))
    assert index.was_evicted(index.root(namespace("alice")), (0,) * 4)
    assert not index.was_evicted(index.root(namespace("bob")), (0,) * 4)


def test_only_the_last_names_are_remembered_and_removed_blocks_are_not() -> None:
    index, root = new_index(num_remembered=2)
    nodes = [index.register(root, (i,) * 4, [BlockId(i)]) for i in range(5)]
    for i in (0, 1, 2, 3):
        index.remove(nodes[i]) if i == 3 else index.forget(BlockId(i))
    assert [i for i in range(5) if index.was_evicted(root, (i,) * 4)] == [1, 2]
    index.register(root, (1,) * 4, [BlockId(1)])
    index.forget(BlockId(1))  # again: now the most recent
    index.forget(BlockId(4))
    assert [i for i in range(5) if index.was_evicted(root, (i,) * 4)] == [1, 4]
    index.register(root, (4,) * 4, [BlockId(4)])
    index.forget(BlockId(4))  # a name that is remembered already takes nobody's place
    assert [i for i in range(5) if index.was_evicted(root, (i,) * 4)] == [1, 4]
    index.check_integrity()


def test_nothing_is_remembered_where_nothing_should_be() -> None:
    index, root = new_index(num_remembered=0)
    index.register(root, (1,), [BlockId(0)])
    index.forget(BlockId(0))
    assert not index.was_evicted(root, (1,))
    assert not root.children


def test_a_namespace_that_nobody_uses_leaves_nothing_behind() -> None:
    index, root = new_index(num_remembered=0)
    assert index.root(namespace()) is root
    assert not root.children
    whole = index.register(root, (1,) * 4, [BlockId(0)])
    part = index.register(whole, (2,), [BlockId(1)])
    assert root.children
    remains = weakref.ref(root)
    del root, whole
    gc.collect()
    assert index.root(namespace()) is remains()  # its blocks keep it
    assert part.parent is not None
    index.remove(part)
    index.remove(part.parent)
    del part
    gc.collect()
    assert remains() is None
    assert len(index._roots) == 0
