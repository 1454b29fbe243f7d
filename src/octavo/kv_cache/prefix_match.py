"""Prefix match: what is known of a prompt, as far as the rows still to run can use it.

Knows the prefix index, and which blocks rows need. Knows nothing of holders or room.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from octavo.kv_cache.groups import Layout
from octavo.kv_cache.prefix_index import Node, PrefixIndex, Root
from octavo.records import CacheReason


class Match(NamedTuple):
    """A known prefix of a prompt."""

    nodes: Sequence[Node]  # whole ones, the root's child first
    partial: Node | None  # the child of the last of them that shares the most of what follows
    partial_tokens: int  # how many it shares
    row: int = 0  # the first that is still to run
    is_window_limited: bool = False  # more is known, but not all that the rows to run would read

    @property
    def num_tokens(self) -> int:
        return (self.nodes[-1].end if self.nodes else 0) + self.partial_tokens


NO_MATCH = Match((), None, 0)


def longest_match(index: PrefixIndex, layout: Layout, root: Root, tokens: Sequence[int]) -> Match:
    """The longest known prefix whose rows still to run have what they need; the last token runs in
    any case. It ends before the last block that is missing though a row needs it: a longer one
    needs that too. The block that the next row would write is needed in every group."""
    nodes, partial, num_shared = index.match(root, tokens)
    size, last = layout.block_size, len(tokens) - 1
    known = length = len(nodes) * size + num_shared
    if partial is not None and None in partial.blocks:
        partial, length = None, len(nodes) * size
    for at in reversed(range(len(nodes) if layout.windowed else 0)):
        if not layout.has_needed(nodes[at].blocks, at, min(length, last)):
            partial, length = None, at * size
    return Match(
        nodes if partial else nodes[: length // size],
        partial,
        num_shared if partial else 0,
        min(length, last),
        length < known,
    )


def miss_reason(
    index: PrefixIndex, root: Root, tokens: Sequence[int], match: Match
) -> CacheReason | None:
    """Say why not all that could be reused was; None if it was."""
    if match.num_tokens >= len(tokens) - 1:
        return None
    if match.is_window_limited:
        return CacheReason.WINDOW
    node = match.nodes[-1] if match.nodes else root
    if index.was_evicted(node, tokens[node.end :]):
        return CacheReason.EVICTED
    if not root.children:
        has_salt = root.namespace is not None and root.namespace.salt
        return CacheReason.SALT if has_salt else CacheReason.COLD
    return CacheReason.DIVERGED
