"""Leaders: which branches wait for a running one that computes blocks they can share.

32 requests offered together would compute their common prefix 32 times; so all but the first wait
until its blocks are there. Only whole blocks are waited for: to wait for the last few tokens inside
a block would run requests one after another that share little more than how a template begins.

Knows branches and their tokens. Knows nothing of blocks, room or time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from octavo.request import Branch


class _Wait(NamedTuple):
    leader: Branch
    until: int  # tokens that the leader will have computed


class Leaders:
    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._waits: dict[Branch, _Wait] = {}

    def is_waiting(self, branch: Branch, running: Iterable[Branch]) -> bool:
        """Is what it waits for still being computed? `running`: branches that have blocks."""
        wait = self._waits.get(branch)
        if wait is None:
            return False
        if wait.leader in running and wait.leader.num_computed_tokens < wait.until:
            return True
        del self._waits[branch]
        return False

    def must_wait(self, branch: Branch, num_found: int, candidates: Iterable[Branch]) -> bool:
        """Does one of the candidates, whose blocks the branch may share, compute whole blocks of
        it beyond the `num_found` tokens that are there?"""
        begin = num_found - num_found % self._block_size
        for leader in candidates:
            until = self._num_shared(branch, leader, begin)
            if until > max(begin, leader.num_computed_tokens):
                self._waits[branch] = _Wait(leader, until)
                return True
        return False

    def forget(self, branch: Branch) -> None:
        """It begins, or has ended."""
        self._waits.pop(branch, None)

    def retain(self, branches: set[Branch]) -> None:
        """Forget all others."""
        self._waits = {s: wait for s, wait in self._waits.items() if s in branches}

    def check_integrity(self, branches: set[Branch]) -> None:
        assert self._waits.keys() <= branches

    def _num_shared(self, branch: Branch, leader: Branch, begin: int) -> int:
        """Tokens of whole blocks that both begin with, more than `begin`; 0 if no more."""
        size, mine, theirs = self._block_size, branch.tokens, leader.tokens
        if leader is branch or leader.num_computed_tokens >= leader.num_tokens - 1:
            return 0  # with one token to go it decodes: what it shares is there, or nearly
        end, most = begin, min(len(mine), len(theirs)) - size
        while end <= most and theirs[end : end + size] == mine[end : end + size]:
            end += size
        # What comes before is compared last: it may be long, and mostly there is nothing to share.
        return end if end > begin and theirs[:begin] == mine[:begin] else 0
