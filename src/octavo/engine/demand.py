"""Demand: blocks and seats that requests take, now and at their longest.

Knows how long branches are and will be. Knows nothing of queues, time or what is free.
"""

from __future__ import annotations

from octavo.kv_cache.manager import BlockTable, KVCacheManager
from octavo.kv_cache.prefix_index import Match
from octavo.request import Branch, Request


class Demand:
    def __init__(self, kv: KVCacheManager, *, keep_computed: bool) -> None:
        self._kv = kv
        self._keep_computed = keep_computed

    def longest(self, request: Request, *, max_tokens: int | None = None) -> int:
        """Blocks in use at its longest, or if it had only so many `max_tokens`: whole blocks of the
        prompt are shared by all branches. The last token drawn is never computed, so its K and V
        need no slot."""
        shared = request.num_prompt_tokens // self._kv.block_size
        one = self._kv.count(request.num_prompt_tokens + (max_tokens or request.max_tokens) - 1)
        return one + (request.width - 1) * (one - shared if self._keep_computed else one)

    def to_begin(self, request: Request, match: Match) -> int:
        """Free blocks that its branches take to reach their next token, `match` found of the
        first; whole blocks of the prompt are taken once."""
        first, *others = live(request)
        shared = request.num_prompt_tokens // self._kv.block_size
        alone = sum(self._kv.count(_next_length(s)) - shared for s in others)
        return self.to_start(first, match) + alone

    def to_start(self, branch: Branch, match: Match) -> int:
        """The same of a branch without blocks."""
        return self._kv.num_missing(match, _next_length(branch))

    def to_go_on(self, branch: Branch, table: BlockTable) -> int:
        """The same of a branch that runs."""
        return max(0, self._kv.count(_next_length(branch)) - len(table.blocks))


def live(request: Request) -> list[Branch]:
    """Its branches that have not ended."""
    return [s for s in request.branches if s.finish_reason is None]


def seats(request: Request) -> int:
    """Sequences of it that may run from now on. An answer that ended gives its seat to others; a
    beam that ended gives it to the beams that go on."""
    if request.params.beam_width or len(request.branches) == 1:
        return request.width
    return len(live(request))


def _next_length(branch: Branch) -> int:
    """Slots in use when its next token but one can be drawn, or at its end."""
    request = branch.request
    return min(branch.num_tokens + 1, request.num_prompt_tokens + request.max_tokens - 1)
