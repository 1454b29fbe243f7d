"""The prefix index, as stories: what matches, to the token, and what never does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.kv_cache import block_names
from octavo.kv_cache.groups import BlockId
from octavo.kv_cache.prefix_index import Node, PrefixIndex
from tests.kv_cache.tiny_tables import TinyTables, namespace, new_index, num_shared, tokens_of


def blocks_of(nodes: Sequence[Node]) -> list[BlockId | None]:
    return [node.blocks[0] for node in nodes]


def test_a_prompt_matches_whole_blocks_then_part_of_one() -> None:
    it = TinyTables(8)
    it.admit("0000 1111 2222")
    match = it.match("0000 1111 22x")
    assert (blocks_of(match.nodes), match.partial_tokens, match.num_tokens) == ([0, 1], 2, 10)
    assert match.partial is not None
    assert (match.partial.blocks[0], match.partial.end) == (2, 12)
    assert [(n.end, n.tokens) for n in match.nodes] == [(4, (48,) * 4), (8, (49,) * 4)]
    for text, num_tokens in [("0000 1111 2222 3", 12), ("000", 3), ("x", 0), ("", 0), ("0x", 1)]:
        assert it.found(text) == num_tokens
    nothing = it.match("1111")  # the second block, but not after the first
    assert (nothing.nodes, nothing.partial, nothing.partial_tokens) == ([], None, 0)


def test_a_match_never_passes_its_limit() -> None:
    """64 tokens in two blocks of 32, all known, of which the last one must run again."""
    (index, root), tokens = new_index(32), list(range(64))
    first = index.register(root, tuple(tokens[:32]), [BlockId(5)])
    second = index.register(first, tuple(tokens[32:]), [BlockId(3)])
    assert index.match(root, tokens[:63]) == ([first], second, 31)
    assert index.match(root, tokens[:64]) == ([first, second], None, 0)
    assert index.match(root, tokens[:33]) == ([first], second, 1)
    assert index.match(root, tokens[:32]) == ([first], None, 0)
    assert index.match(root, tokens[:31]) == ([], first, 31)
    assert index.match(root, tokens[:0]) == ([], None, 0)
    assert index.match(root, tuple(tokens)[:63]) == index.match(root, tokens[:63])


def test_a_partial_block_matches_only_as_the_partial_one() -> None:
    it = TinyTables(8)
    part, whole = it.begin("0000 12"), it.begin("0000 1299")
    it.run(part, "0000 12")
    it.end(part, "0000 12")
    match = it.match("0000 1234")
    assert (blocks_of(match.nodes), match.partial_tokens) == ([0], 2)
    assert it.match("0000 12")[:3] == match[:3]
    it.run(whole, "0000 1299")  # a longer sibling that shares as much
    match = it.match("0000 1293")
    assert match.partial is not None
    assert (match.partial.blocks[0], match.num_tokens) == (3, 7)


@settings(deadline=None)
@given(
    st.sets(st.lists(st.integers(0, 2), min_size=1, max_size=4).map(tuple), max_size=12),
    st.lists(st.integers(0, 2), max_size=6),
)
def test_the_longest_shared_part_is_found_among_all_children(
    children: set[tuple[int, ...]], following: list[int]
) -> None:
    index, root = new_index()
    for i, tokens in enumerate(children):
        index.register(root, tokens, [BlockId(i)])
    shared = {num_shared(tokens, following) for tokens in children} - {0}
    found = index.match_child(root, following)
    if found is None:
        assert not shared
    else:
        node, count = found
        assert count == max(shared)
        assert list(node.tokens[:count]) == following[:count]
    index.check_integrity()


def test_equal_tokens_of_another_namespace_never_match() -> None:
    it = TinyTables(8)
    alice, bob = it.kv.open(namespace("alice")), it.kv.open(namespace("bob"))
    it.admit("0000 1111", alice)
    assert [it.match("0000 1111", root).num_tokens for root in (bob, it.root)] == [0, 0]
    assert it.admit("0000 1111", bob).blocks[0] == [2, 3]
    assert blocks_of(it.match("0000 1111", alice).nodes) == [0, 1]
    assert blocks_of(it.match("0000 1111", bob).nodes) == [2, 3]


def test_matches_stay_right_when_every_hash_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_names, "digest", lambda data: b"constant")
    it = TinyTables(5)
    alice, bob = it.kv.open(namespace("alice")), it.kv.open(namespace("bob"))
    tables = [it.admit("0000 1111", alice), it.admit("0000 2222", bob)]
    for text, root, num_tokens, blocks in [
        ("0000 1111", alice, 8, [0, 1]),
        ("0000 2222", alice, 4, [0]),
        ("0000 2222", bob, 8, [2, 3]),
        ("1111", alice, 0, []),
    ]:
        match = it.match(text, root)
        assert (match.num_tokens, blocks_of(match.nodes)) == (num_tokens, blocks)
    for table in tables:
        it.drop(table)
    other = it.begin("xxxx yyyy")
    assert it.reserve(other, 8)
    assert other.blocks[0] == [4, 1]
    assert it.match("0000 1111", alice).num_tokens == 4
    assert it.match("0000 2222", bob).num_tokens == 8


def test_the_same_tokens_have_one_node() -> None:
    index, root = new_index()
    node = index.register(root, (1, 2, 3, 4), [BlockId(0)])
    assert index.register(root, (1, 2, 3, 4), [BlockId(1)]) is node
    assert node.blocks[0] == 0
    assert [index.num_named(BlockId(b)) for b in (0, 1)] == [4, 0]
    assert root.children.get((1, 2, 3, 4)) is node
    assert (1, 2, 3) not in root.children


def test_a_partial_block_is_extended_in_place() -> None:
    it = TinyTables(4)
    it.end(it.admit("0000 1"), "0000 1")
    (parent,), node = it.match("0000 1")[:2]
    assert node is not None
    short_name = node.name
    assert it.index.register(parent, tokens_of("123"), [BlockId(1)]) is node
    assert it.index.register(parent, tokens_of("1234"), [BlockId(1)]) is node
    assert (node.tokens, node.end, node.blocks[0]) == (tokens_of("1234"), 8, 1)
    assert node.name == block_names.block_name(parent.name, tokens_of("1234")) != short_name
    assert tuple(tokens_of("1")) not in parent.children
    assert it.found("0000 1239") == 7
    it.check()
    it.index.register(node, tokens_of("5"), [BlockId(2)])  # whole now, so it may have children
    assert it.found("0000 1234 5") == 9
    it.index.check_integrity()


def test_a_part_that_another_block_has_completed_keeps_its_own_node() -> None:
    index, root = new_index()
    part = index.register(root, (1, 2), [BlockId(0)])
    whole = index.register(root, (1, 2, 3, 4), [BlockId(1)])
    assert index.register(root, (1, 2, 3, 4), [BlockId(0)]) is whole  # the caller swaps its block
    assert root.children[1, 2] is part
    index.check_integrity()


def test_a_tree_is_listed_leaves_first() -> None:
    it = TinyTables(8)
    for text in ("0000 1111 22", "0000 3333", "4444"):
        it.end(it.admit(text), text)
    nodes = it.index.leaves_first(it.root)
    assert {*blocks_of(nodes)} == {0, 1, 2, 3, 4}
    for node in nodes:
        (block,) = it.index.remove(node)  # asserts that it has no children left
        it.pool.uncache(block)
        it.check()
    assert not it.root.children
    assert it.index.leaves_first(it.root) == []


def test_a_long_chain_is_named_and_removed_without_recursion() -> None:
    index, root = new_index(1)
    node: Node = root
    for i in range(20_000):
        node = index.register(node, (i,), [BlockId(i)])
    name = root.name
    for i in range(20_000):
        name = block_names.block_name(name, (i,))
    assert node.name == name
    assert node.end == len(index.match(root, range(20_000))[0]) == 20_000
    index.check_integrity()


@pytest.mark.parametrize(
    "misuse",
    [
        lambda index, whole, part: index.register(whole, (), [BlockId(9)]),
        lambda index, whole, part: index.register(whole, (1,) * 5, [BlockId(9)]),
        lambda index, whole, part: index.register(part, (1,), [BlockId(9)]),  # a partial parent
        lambda index, whole, part: index.register(whole.parent, (1,) * 4, [BlockId(1)]),  # another
        lambda index, whole, part: index.register(whole, (3, 3), [BlockId(1)]),  # other tokens
        lambda index, whole, part: index.register(whole, (2,), [BlockId(1)]),  # shorter
        lambda index, whole, part: index.remove(whole),  # has a child
    ],
)
def test_misuse_is_a_bug(misuse: Callable[[PrefixIndex, Node, Node], object]) -> None:
    index, root = new_index()
    whole = index.register(root, (0,) * 4, [BlockId(0)])
    part = index.register(whole, (2, 2), [BlockId(1)])
    with pytest.raises(AssertionError):
        misuse(index, whole, part)
    index.check_integrity()


def test_nothing_is_registered_under_a_forgotten_parent() -> None:
    index, root = new_index()
    node = index.register(root, (0,) * 4, [BlockId(0)])
    index.forget(BlockId(0))
    with pytest.raises(AssertionError, match="a forgotten parent"):
        index.register(node, (1,), [BlockId(1)])


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda root, a, b: root._keys.reverse(), "sorted keys"),
        (lambda root, a, b: root._keys.pop(), "sorted keys"),
        (lambda root, a, b: root.children.pop(b.tokens), "sorted keys"),
        (lambda root, a, b: setattr(b, "parent", a), "parent and child agree"),
        (lambda root, a, b: setattr(b, "tokens", (3,)), "parent and child agree"),
        (lambda root, a, b: setattr(b, "blocks", a.blocks), "one node for a block"),
        (lambda root, a, b: setattr(b, "blocks", [7]), "every block is in a tree"),
        (lambda root, a, b: setattr(b, "end", 3), "a wrong end"),
        (lambda root, a, b: setattr(b, "_name", b"x"), "a stale name"),
    ],
)
def test_damage_is_noticed(damage: Callable[[Node, Node, Node], object], complaint: str) -> None:
    index, root = new_index()
    a = index.register(root, (0,) * 4, [BlockId(0)])
    b = index.register(root, (1,) * 4, [BlockId(1)])
    index.check_integrity()
    damage(root, a, b)
    with pytest.raises(AssertionError, match=complaint):
        index.check_integrity()


def test_disagreement_with_the_pool_is_noticed() -> None:
    kept_only, found_only, holders = (TinyTables(4) for _ in range(3))
    for it in (kept_only, found_only, holders):
        it.admit("0000 1111")
    kept_only.index.remove(kept_only.match("0000 1111").nodes[1])
    found_only.pool.uncache(BlockId(1))
    holders.pool.free([BlockId(0)])  # the child is held, its parent is not
    for it in (kept_only, found_only, holders):
        it.pool.check_integrity()
        it.index.check_integrity()
        with pytest.raises(AssertionError):
            it.index.check_agreement(it.pool)
