"""PrefixUses: how often what is cached was found, by where a match ended.

Knows nodes of the prefix index; keeps none of them.
"""

from __future__ import annotations

import heapq
from weakref import WeakKeyDictionary

from octavo.kv_cache.prefix_index import Node, Root
from octavo.records import SharedPrefix


class PrefixUses:
    def __init__(self) -> None:
        self._ended: WeakKeyDictionary[Node, int] = WeakKeyDictionary()  # matches, at their end

    def note(self, last: Node) -> None:
        """A sequence begins with all up to this node."""
        self._ended[last] = self._ended.get(last, 0) + 1

    def top(self, root: Root, most: int) -> list[SharedPrefix]:
        """The prefixes under a root that saved most: tokens times matches that had them all."""
        nodes: list[Node] = []
        pending: list[Node] = [*root.children.values()]
        while pending:
            nodes.append(node := pending.pop())
            pending += node.children.values()
        hits: dict[Node, int] = {}
        for node in reversed(nodes):  # children first
            below = sum(hits[child] for child in node.children.values())
            hits[node] = below + self._ended.get(node, 0)
        ends = [node for node in nodes if node in self._ended]
        best = heapq.nlargest(most, ends, key=lambda node: hits[node] * node.end)
        return [SharedPrefix(_tokens(node), hits[node]) for node in best]


def _tokens(node: Node) -> tuple[int, ...]:
    parts = []
    while node.parent is not None:
        parts.append(node.tokens)
        node = node.parent
    return tuple(token for part in reversed(parts) for token in part)
