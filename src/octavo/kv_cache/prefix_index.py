"""Prefix index: which tokens each findable block holds, as a tree of blocks.

Knows tokens, names and block ids. Knows nothing of holders, requests or arrays; the block pool says
which blocks may go and calls `forget`. A node is found from its parent by its tokens, compared
themselves, so equal tokens under another parent or namespace never match, whatever a hash does.

Only a whole block (`block_size` tokens) has children. A partial one is a leaf; it may be extended,
and is found by the tokens it shares with what follows, like a whole block that diverges.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakValueDictionary

from octavo.kv_cache.block_pool import BlockId, BlockPool
from octavo.kv_cache.names import Namespace, block_name, root_name


class Node:
    """One block of a prefix, or the root of a namespace. Only PrefixIndex changes one."""

    __slots__ = ("__weakref__", "_keys", "_name", "block", "children", "end", "parent", "tokens")

    def __init__(self, parent: Node | None, tokens: tuple[int, ...], block: BlockId | None) -> None:
        self.parent = parent
        self.tokens = tokens
        self.block = block  # None at a root
        self.end: int = len(tokens) + (parent.end if parent else 0)  # tokens from the root to here
        self.children: dict[tuple[int, ...], Node] = {}
        self._keys: list[tuple[int, ...]] = []  # the children's tokens, sorted
        self._name: bytes | None = None

    @property
    def name(self) -> bytes:
        """Its name across processes, computed when first asked for."""
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


class Match(NamedTuple):
    nodes: list[Node]  # whole blocks, the root's child first
    partial: Node | None  # the child of the last of them that shares the most of what follows
    partial_tokens: int  # how many it shares

    @property
    def num_tokens(self) -> int:
        return (self.nodes[-1].end if self.nodes else 0) + self.partial_tokens


class PrefixIndex:
    def __init__(self, block_size: int, *, num_remembered: int) -> None:
        """The names of the `num_remembered` blocks evicted last tell `was_evicted` from unknown."""
        self.block_size = block_size
        self._num_remembered = num_remembered
        # Weak: a node holds its parents, so a root lives while a block or a caller has use for it.
        self._roots: WeakValueDictionary[Namespace, Node] = WeakValueDictionary()
        self._nodes: dict[BlockId, Node] = {}
        # Of evicted blocks, oldest first: name -> tokens in it; and name of the parent -> tokens in
        # the partial child of it that went last.
        self._evicted: OrderedDict[bytes, int] = OrderedDict()
        self._evicted_partials: OrderedDict[bytes, int] = OrderedDict()

    def root(self, namespace: Namespace) -> Node:
        root = self._roots.get(namespace)
        if root is None:
            root = Node(None, (), None)
            root._name = root_name(namespace)
            self._roots[namespace] = root
        return root

    def match(self, root: Node, tokens: Sequence[int], limit: int) -> Match:
        """The longest known prefix of `tokens[:limit]`, to the token."""
        assert limit <= len(tokens)
        nodes: list[Node] = []
        node, begin = root, 0
        while begin + self.block_size <= limit:
            child = node.children.get(tuple(tokens[begin : begin + self.block_size]))
            if child is None:
                break
            nodes.append(child)
            node, begin = child, child.end
        following = tokens[begin : min(begin + self.block_size, limit)]
        return Match(nodes, *(self.match_child(node, following) or (None, 0)))

    def match_child(self, parent: Node, following: Sequence[int]) -> tuple[Node, int] | None:
        """The child that begins with the most of `following`, and how many tokens; None: no child
        shares the first."""
        following = tuple(following)
        place = bisect_left(parent._keys, following)
        # What shares the most with `following` is a neighbour of its place among the sorted keys.
        nearest = parent._keys[max(place - 1, 0) : place + 1]
        count, key = max(((_num_shared(k, following), k) for k in nearest), default=(0, ()))
        return (parent.children[key], count) if count else None

    def register(self, parent: Node, tokens: tuple[int, ...], block: BlockId) -> Node:
        """The node of `tokens` after `parent`: the one there is (with a block of its own), else the
        shorter one that `block` has there, extended, else a new one."""
        assert 1 <= len(tokens) <= self.block_size
        assert parent.block is None or self._nodes.get(parent.block) is parent, "a forgotten parent"
        assert parent.block is None or len(parent.tokens) == self.block_size, "a partial parent"
        existing = parent.children.get(tokens)
        if existing is not None:
            return existing
        node = self._nodes.get(block)
        if node is None:
            node = self._nodes[block] = Node(parent, tokens, block)
        else:
            assert node.parent is parent
            assert node.tokens == tokens[: len(node.tokens)]
            _unlink(node)
            node.tokens, node.end, node._name = tokens, parent.end + len(tokens), None
        parent.children[tokens] = node
        insort(parent._keys, tokens)
        return node

    def node_of(self, block: BlockId) -> Node | None:
        return self._nodes.get(block)

    def forget(self, block: BlockId) -> None:
        """The block was evicted; its name is remembered, and the oldest name let go."""
        node = self._nodes[block]
        self.remove(block)
        if self._num_remembered == 0:
            return
        assert node.parent is not None
        length = len(node.tokens)
        _remember(self._evicted, node.name, length, self._num_remembered)
        if length < self.block_size:
            _remember(self._evicted_partials, node.parent.name, length, self._num_remembered)

    def remove(self, block: BlockId) -> None:
        """The block is found no more, and nothing of it is remembered."""
        assert not self._nodes[block].children, "children go before their parent"
        _unlink(self._nodes.pop(block))

    def was_evicted(self, node: Node, following: Sequence[int]) -> bool:
        """Was a child of `node` evicted that held the next whole block of `following`, or a part
        of it? Of the parts that were evicted, only the last one is known."""
        lengths = {self.block_size, self._evicted_partials.get(node.name, self.block_size)}
        return any(
            block_name(node.name, following[:length]) in self._evicted
            for length in lengths
            if length <= len(following)
        )

    def is_empty(self, root: Node) -> bool:
        return not root.children

    def leaves_first(self, root: Node) -> list[Node]:
        """All blocks under a root, each before its parent: the order to remove them in."""
        nodes, pending = [], [root]
        while pending:
            node = pending.pop()
            nodes.append(node)
            pending += node.children.values()
        return nodes[:0:-1]

    def rebuild(self) -> list[Node]:
        """Make the trees whole after an exception in the middle of a change; all nodes, parents
        first. A node that its parent does not list is lost."""
        found: list[Node] = []
        for root in self._roots.values():
            for node in [root, *reversed(self.leaves_first(root))]:
                node._keys = sorted(node.children)
                found += node.children.values()
        self._nodes = {n.block: n for n in found if n.block is not None}
        return found

    def check_integrity(self) -> None:
        """Walk every tree; AssertionError if one is not whole."""
        seen: dict[BlockId, Node] = {}
        for root in self._roots.values():
            assert (root.block, root.parent, root.tokens, root.end) == (None, None, (), 0)
            for node in [*self.leaves_first(root), root]:
                assert sorted(node.children) == node._keys, "sorted keys are the children's"
                for tokens, child in node.children.items():
                    self._check_child(node, tokens, child)
                    assert child.block is not None
                    assert child.block not in seen, "one node for a block"
                    seen[child.block] = child
        assert seen == self._nodes, "every block is in a tree"
        assert len(self._evicted) <= self._num_remembered
        assert len(self._evicted_partials) <= self._num_remembered

    def _check_child(self, node: Node, tokens: tuple[int, ...], child: Node) -> None:
        assert (child.parent, child.tokens) == (node, tokens), "parent and child agree"
        assert child.end == node.end + len(tokens), "a wrong end"
        assert 1 <= len(tokens) <= self.block_size
        assert len(tokens) == self.block_size or not child.children, "a part is a leaf"
        assert child._name in (None, block_name(node.name, tokens)), "a stale name"

    def check_agreement(self, pool: BlockPool) -> None:
        """AssertionError unless the pool keeps exactly the blocks of the trees, and whoever holds a
        block holds its parents."""
        blocks = [BlockId(b) for b in range(pool.num_blocks)]
        assert {b for b in blocks if pool.is_kept(b)} == self._nodes.keys(), "kept and found differ"
        for block, node in self._nodes.items():
            assert node.parent is not None
            above = node.parent.block
            assert above is None or pool.num_holders(block) <= pool.num_holders(above)


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


def _remember(memory: OrderedDict[bytes, int], name: bytes, length: int, limit: int) -> None:
    memory.pop(name, None)
    while len(memory) >= limit:
        memory.popitem(last=False)
    memory[name] = length
