"""Prefix index: which tokens each cached block holds, as one tree of nodes for all layer groups.

Knows tokens, names and block ids. Knows nothing of holders, requests or arrays; the block pool says
which blocks may go and calls `forget`. A node is found from its parent by its tokens, compared
themselves, so equal tokens under another parent or namespace never match, whatever a hash does.

A node has a block for each group that has one at its place. It lives while it has those of groups
that keep all; others may be missing. If none keeps all it lives while it has a block or a child.

Only a whole node (`block_size` tokens) has children. A partial one is a leaf; it may be extended,
and is found by the tokens it shares with what follows, like a whole one that diverges.
"""

from __future__ import annotations

import os
from bisect import bisect_left, insort
from collections.abc import Sequence
from weakref import WeakValueDictionary

from octavo.kv_cache.block_names import Namespace, block_name, root_name
from octavo.kv_cache.block_pool import BlockPool
from octavo.kv_cache.evicted_names import EvictedNames
from octavo.kv_cache.groups import BlockId, Layout

Blocks = Sequence[BlockId | None]  # one for each group, or none


class Node:
    """One block of a prefix in the layer groups, or a root. Only PrefixIndex changes one."""

    __slots__ = ("__weakref__", "_keys", "_name", "blocks", "children", "end", "parent", "tokens")

    def __init__(self, parent: Node | None, tokens: tuple[int, ...], blocks: Blocks) -> None:
        self.parent = parent
        self.tokens = tokens
        self.blocks = list(blocks)
        self.end: int = len(tokens) + (parent.end if parent else 0)  # tokens from the root to here
        self.children: dict[tuple[int, ...], Node] = {}
        self._keys: list[tuple[int, ...]] = []  # the children's tokens, sorted
        self._name: bytes | None = None

    @property
    def name(self) -> bytes:
        """Return the node's name across processes, computed when first asked for."""
        unnamed: list[Node] = []
        node: Node = self
        while node._name is None:  # no recursion: a prompt may have thousands of blocks
            assert node.parent is not None, "a root is born with its name"
            unnamed.append(node)
            node = node.parent
        name = node._name
        for node in reversed(unnamed):
            name = node._name = block_name(name, node.tokens)
        return name


class Root(Node):
    """The node where the prefixes of one namespace begin, or those of one request alone (None)."""

    __slots__ = ("namespace",)

    def __init__(self, namespace: Namespace | None, num_groups: int) -> None:
        super().__init__(None, (), [None] * num_groups)
        self.namespace = namespace
        self._name = os.urandom(32) if namespace is None else root_name(namespace)


class PrefixIndex:
    def __init__(self, layout: Layout, *, num_remembered: int) -> None:
        """The names of the `num_remembered` blocks evicted last tell `was_evicted` from unknown."""
        self._layout, self.block_size = layout, layout.block_size
        self._keeps_all = tuple(group.keeps_all for group in layout.groups)
        self._num_remembered = num_remembered
        self._evicted = EvictedNames(layout.block_size, num_remembered)
        # Weak: a node holds its parents, so a root lives while a block or a caller has use for it.
        self._roots: WeakValueDictionary[object, Root] = WeakValueDictionary()
        self._nodes: dict[BlockId, Node] = {}

    def root(self, namespace: Namespace | None) -> Root:
        """The root of a namespace; for None a new one, which nobody else is given."""
        key = object() if namespace is None else namespace
        root = self._roots.get(key)
        if root is None:
            root = self._roots[key] = Root(namespace, len(self._keeps_all))
        return root

    def roots(self) -> list[Root]:
        return list(self._roots.values())

    def match(self, root: Root, tokens: Sequence[int]) -> tuple[list[Node], Node | None, int]:
        """The longest known prefix of `tokens`: its whole nodes, the root's child first; the child
        of the last of them that shares the most of what follows; how many tokens that shares."""
        nodes: list[Node] = []
        node: Node = root
        begin = 0
        while begin + self.block_size <= len(tokens):
            child = node.children.get(tuple(tokens[begin : begin + self.block_size]))
            if child is None:
                break
            nodes.append(child)
            node, begin = child, child.end
        following = tokens[begin : begin + self.block_size]
        return nodes, *(self.match_child(node, following) or (None, 0))

    def match_child(self, parent: Node, following: Sequence[int]) -> tuple[Node, int] | None:
        """The child that begins with the most of `following`, and how many tokens; None: no child
        shares the first."""
        following = tuple(following)
        place = bisect_left(parent._keys, following)
        # What shares the most with `following` is a neighbour of its place among the sorted keys.
        nearest = parent._keys[max(place - 1, 0) : place + 1]
        count, key = max(((_num_shared(k, following), k) for k in nearest), default=(0, ()))
        return (parent.children[key], count) if count else None

    def register(self, parent: Node, tokens: tuple[int, ...], blocks: Blocks) -> Node:
        """The node of `tokens` after `parent`: the one there is, else the shorter one that these
        blocks have there, extended, else a new one. It takes the blocks that it has not."""
        assert 1 <= len(tokens) <= self.block_size
        assert self.is_known(parent), "a forgotten parent"
        assert parent.parent is None or len(parent.tokens) == self.block_size, "a partial parent"
        node = parent.children.get(tokens)
        if node is None:
            node = next((self._nodes[b] for b in blocks if b in self._nodes), None)
            if node is None:
                node = Node(parent, tokens, [None] * len(blocks))
            else:
                assert node.parent is parent
                assert node.tokens == tokens[: len(node.tokens)]
                assert all(b in (None, c) for b, c in zip(node.blocks, blocks, strict=True))
                _unlink(node)
                node.tokens, node.end, node._name = tokens, parent.end + len(tokens), None
            self._fill(node, blocks)
            parent.children[tokens] = node
            insort(parent._keys, tokens)
        elif None in node.blocks:
            self._fill(node, blocks)
        return node

    def is_known(self, node: Node) -> bool:
        """Tell whether the node is still in a tree."""
        return node.parent is None or node.parent.children.get(node.tokens) is node

    def restore(self, node: Node) -> Node:
        """The node in a tree of the same tokens as a forgotten one, without blocks if it is new. It
        lives if it is given some, or a child."""
        path = []
        while not self.is_known(node):
            assert node.parent is not None
            path.append(node.tokens)
            node = node.parent
        for tokens in reversed(path):
            node = self.register(node, tokens, [None] * len(self._keeps_all))
        return node

    def num_named(self, block: BlockId) -> int:
        """Tokens of the block that are found."""
        node = self._nodes.get(block)
        return 0 if node is None else len(node.tokens)

    def forget(self, block: BlockId) -> list[BlockId]:
        """The block was evicted, or is to hold other tokens. If its group keeps all, its node and
        what follows go too, and their names are remembered; the other blocks that are found no
        more, the tail first."""
        node = self._nodes[block]
        group = node.blocks.index(block)
        if not self._keeps_all[group]:
            node.blocks[group] = None
            del self._nodes[block]
            self.prune(node)
            return []
        forgotten = [*self.leaves_first(node), node]
        for each in forgotten:
            self._remember(each)
        return [b for each in forgotten for b in self.remove(each) if b != block]

    def remove(self, node: Node) -> list[BlockId]:
        """The node is found no more, and nothing of it is remembered; its blocks."""
        assert not node.children, "children go before their parent"
        blocks = [b for b in node.blocks if b is not None]
        _unlink(node)
        for block in blocks:
            del self._nodes[block]
        assert node.parent is not None
        self.prune(node.parent)
        return blocks

    def was_evicted(self, node: Node, following: Sequence[int]) -> bool:
        """Was a child of `node` evicted that held what follows?"""
        return self._evicted.has_child(node.name, following)

    def leaves_first(self, top: Node) -> list[Node]:
        """Return all nodes below one, each before its parent: the order to remove them in."""
        nodes, pending = [], [top]
        while pending:
            node = pending.pop()
            nodes.append(node)
            pending += node.children.values()
        return nodes[:0:-1]

    def rebuild(self) -> list[Node]:
        """Make the trees whole after an exception in the middle of a change; all nodes, parents
        first. A node that its parent does not list is lost, and so is one that lacks a block."""
        found: list[Node] = []
        for root in self._roots.values():
            for node in self.leaves_first(root):
                node._keys = sorted(node.children)
                if not self._is_whole(node):
                    assert node.parent is not None
                    del node.parent.children[node.tokens]
            root._keys = sorted(root.children)
            found += reversed(self.leaves_first(root))
        self._nodes = {b: n for n in found for b in n.blocks if b is not None}
        return found

    def check_integrity(self) -> None:
        """Walk every tree; AssertionError if one is not whole."""
        seen: dict[BlockId, Node] = {}
        for root in self._roots.values():
            assert (set(root.blocks), root.parent, root.tokens, root.end) == ({None}, None, (), 0)
            for node in [*self.leaves_first(root), root]:
                assert sorted(node.children) == node._keys, "sorted keys are the children's"
                for tokens, child in node.children.items():
                    self._check_child(node, tokens, child)
                    for block in child.blocks:
                        assert block not in seen, "one node for a block"
                        if block is not None:
                            seen[block] = child
        assert seen == self._nodes, "every block is in a tree"
        self._evicted.check_integrity()

    def _check_child(self, node: Node, tokens: tuple[int, ...], child: Node) -> None:
        assert (child.parent, child.tokens) == (node, tokens), "parent and child agree"
        assert child.end == node.end + len(tokens), "a wrong end"
        assert 1 <= len(tokens) <= self.block_size
        assert len(tokens) == self.block_size or not child.children, "a part is a leaf"
        assert self._is_whole(child), "a node lacks a block"
        assert child._name in (None, block_name(node.name, tokens)), "a stale name"

    def check_agreement(self, pool: BlockPool) -> None:
        """AssertionError unless exactly the blocks of the trees are cached in the pool, and whoever
        holds a block of a group that keeps all holds its parents."""
        blocks = [BlockId(b) for b in range(pool.num_blocks)]
        cached = {b for b in blocks if pool.is_cached(b)}
        assert cached == self._nodes.keys(), "cached and found differ"
        for block, node in self._nodes.items():
            group = pool.group(block)
            assert node.blocks[group] == block
            above = self._layout.above(node.parent.blocks, group) if node.parent else None
            assert above is None or pool.num_holders(block) <= pool.num_holders(above)

    def _is_whole(self, node: Node) -> bool:
        """Tell whether the node has all that it needs to stay: a block in each group that keeps all
        positions, or, if no group does, any block or a child."""
        if not any(self._keeps_all):
            return bool(node.children) or any(b is not None for b in node.blocks)
        missing = (g for g, b in enumerate(node.blocks) if b is None and self._keeps_all[g])
        return not any(self._layout.has(g, (node.end - 1) // self.block_size) for g in missing)

    def _fill(self, node: Node, blocks: Blocks) -> None:
        """Give the node the blocks that it lacks. One of a shorter node leaves that: this one has
        all its tokens."""
        for group, block in enumerate(blocks):
            if block is None or node.blocks[group] is not None:
                continue
            shorter = self._nodes.get(block)
            if shorter is not None:
                shorter.blocks[group] = None
                if not self._is_whole(shorter):
                    _unlink(shorter)
            self._nodes[block] = node
            node.blocks[group] = block

    def prune(self, node: Node) -> None:
        """A node in a tree of which nothing is left goes, and so do those above it."""
        while node.parent is not None and not self._is_whole(node):
            self._remember(node)
            _unlink(node)
            node = node.parent

    def _remember(self, node: Node) -> None:
        if self._num_remembered:
            assert node.parent is not None
            self._evicted.add(node.parent.name, node.name, len(node.tokens))


def _num_shared(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    count = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        count += 1
    return count


def _unlink(node: Node) -> None:
    assert node.parent is not None
    keys = node.parent._keys
    del node.parent.children[node.tokens]
    del keys[bisect_left(keys, node.tokens)]
