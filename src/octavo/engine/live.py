"""LiveRequests: the one registry of requests that have not ended, and where they and their branches
begin, part and end.

Knows requests and block tables. Decides nothing: the scheduler says who runs, the sampler how they
go on. After an exception anywhere, `recover` makes registry, queues and cache agree again.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from octavo.engine.step import Decoding, StepResult
from octavo.kv_cache.cache import NO_MATCH, BlockTable, KVCache, Match, Root
from octavo.request import Branch, FinishReason, Request


class Wait(NamedTuple):
    """Names the running branch whose blocks a waiting one will share."""

    producer: Branch
    until: int  # tokens that the producer will have computed


@dataclass(slots=True, eq=False)
class Live:
    """All that the engine knows of a request that has not ended."""

    request: Request
    root: Root  # its prefixes are found, and registered, under it
    is_private: bool  # nobody else finds what is under the root
    decoding: Decoding
    deadline: float = inf  # of the engine's clock
    tables: dict[Branch, BlockTable] = field(default_factory=dict)  # of branches that have begun
    waits: dict[Branch, Wait] = field(default_factory=dict)
    is_running: bool = False
    is_half: bool = False  # an update of it has begun and not come to its end
    ending: FinishReason | None = None  # so has its end

    @property
    def rank(self) -> tuple[int, int]:
        """Return its place in both queues, running and waiting: the smallest comes first."""
        return self.request.options.priority, self.request.id

    @property
    def num_slots(self) -> int:
        return self.decoding.num_slots(self.request)


class LiveRequests:
    def __init__(self, kv: KVCache, *, keep_computed: bool) -> None:
        """`keep_computed=False` forgets K and V after every token: the run without a cache."""
        self.keep_computed = keep_computed
        self.by_request: dict[Request, Live] = {}
        self.waiting: list[Live] = []  # by rank
        self.running: list[Live] = []  # by rank
        self.result = StepResult()  # what was not told yet
        self.next_deadline = inf
        self._kv = kv
        self._lets_go = any(not group.keeps_all for group in kv.groups)

    def add(self, live: Live) -> None:
        self.by_request[live.request] = live
        insort(self.waiting, live, key=_rank)
        self.next_deadline = min(self.next_deadline, live.deadline)

    def admit(self, live: Live) -> None:
        """Move a request from the waiting to the running ones."""
        self.waiting.remove(live)
        live.is_running = True
        insort(self.running, live, key=_rank)

    def preempt(self, live: Live) -> None:
        """Take back its blocks; it waits again, with the tokens that it has."""
        self._note_peak(live)
        for branch in live.request.live_branches:
            self._release(live, branch)
            branch.num_computed_tokens = 0
        live.request.num_preemptions += 1
        live.is_running = False
        self.running.remove(live)
        insort(self.waiting, live, key=_rank)

    def begin(self, live: Live, branch: Branch, match: Match) -> None:
        """Give a branch a block table, with what was found of its tokens."""
        table = self._kv.begin(live.root, match, live.request.num_prompt_tokens)
        live.tables[branch] = table
        # The last token runs in any case, since its output is what is wanted.
        branch.num_computed_tokens = min(table.num_stored, branch.num_tokens - 1)

    def commit(self, live: Live, branch: Branch, accepted: int) -> None:
        """K and V of the first `accepted` tokens of a branch are in its blocks."""
        if self.keep_computed:
            size = self._kv.block_size
            becomes_whole = branch.num_computed_tokens // size < accepted // size
            if self._lets_go or (becomes_whole and len(live.tables) > 1):  # equal ones become one
                self._note_peak(live)
            self._kv.commit(live.tables[branch], branch.tokens, accepted)
            branch.num_computed_tokens = accepted

    def fork(self, live: Live, branch: Branch, index: int) -> Branch:
        """Another branch of the same request, with the same tokens, sharing their blocks."""
        table = live.tables[branch]
        twin = Branch(live.request, index, list(branch.tokens), branch.num_computed_tokens)
        live.tables[twin] = (
            self._kv.fork(table) if self.keep_computed else self._kv.begin(live.root, NO_MATCH)
        )
        live.request.branches.append(twin)
        return twin

    def drop(self, live: Live, branch: Branch) -> None:
        """A branch that lost: its blocks go back, and it is no answer of its request."""
        self._note_peak(live)
        live.request.branches.remove(branch)
        self._kv.free(live.tables.pop(branch))

    def finish_branch(self, live: Live, branch: Branch, reason: FinishReason) -> None:
        """End one branch, wherever it is; what it computed stays findable. A second end is a bug
        of the caller."""
        assert branch.finish_reason is None
        self._note_peak(live)
        branch.finish_reason = reason
        self._release(live, branch)

    def end(self, live: Live, reason: FinishReason, *, tell: bool = True) -> None:
        """End a request: branches that live end with `reason`, and what the decoding makes of them
        are its answers. `tell`: the next result names it. May be called again for an end that an
        exception broke off."""
        live.ending = live.ending or reason
        for branch in live.request.live_branches:
            self.finish_branch(live, branch, reason)
        live.decoding.close(live.request, reason)
        if live.is_private:
            self._kv.close(live.root)
        live.request.finished = True
        queue = self.running if live.is_running else self.waiting
        if live in queue:
            queue.remove(live)
        if tell and live.request not in self.result.finished:
            self.result.finished.append(live.request)
        self.by_request.pop(live.request, None)

    def fail(self, live: Live, error: Exception) -> None:
        """End a request with what it caused."""
        live.request.error = error
        self.end(live, "error")

    def end_late(self, now: float) -> None:
        """End what is past its deadline."""
        if now < self.next_deadline:
            return
        late = [live for live in self.by_request.values() if live.deadline <= now]
        for live in sorted(late, key=lambda live: live.deadline):
            self.end(live, "deadline")
        self.next_deadline = min((each.deadline for each in self.by_request.values()), default=inf)

    def take_result(self) -> StepResult:
        result, self.result = self.result, StepResult()
        return result

    def tables(self) -> Iterable[BlockTable]:
        return (table for live in self.running for table in live.tables.values())

    def recover(self) -> None:
        """After an exception anywhere: a request that lost its blocks computes them again, one
        that was half changed ends, and an end that had begun is brought to its end."""
        every = list(self.by_request.values())
        self.running = sorted((live for live in every if live.is_running), key=_rank)
        self.waiting = sorted((live for live in every if not live.is_running), key=_rank)
        for live in every:
            going_on = set(live.request.live_branches if live.is_running else ())
            live.tables = {b: t for b, t in live.tables.items() if b in going_on}
            live.waits = {b: w for b, w in live.waits.items() if b.finish_reason is None}
        self._kv.recover(list(self.tables()))
        for live in every:
            for branch in live.request.live_branches:
                self._resume(live, branch)
        for live in every:
            if live.is_half or live.ending or not live.request.live_branches:
                self.end(live, live.ending or "abort")

    def check_integrity(self) -> None:
        """Registry, queues, tables and cache agree; only what runs has tables."""
        self._kv.check_integrity(list(self.tables()))
        queued = [*self.running, *self.waiting]
        assert len(queued) == len(self.by_request)
        assert set(queued) == set(self.by_request.values())
        for queue in (self.running, self.waiting):
            assert queue == sorted(queue, key=_rank)
            assert all(live.is_running == (queue is self.running) for live in queue)
        assert all(self.next_deadline <= live.deadline for live in queued)
        for live in queued:
            assert not live.request.finished
            assert not live.is_half
            assert live.ending is None
            assert live.is_running or not live.tables
            assert live.tables.keys() <= set(live.request.live_branches)
            assert live.waits.keys() <= set(live.request.live_branches)
            for branch, table in live.tables.items():
                assert branch.num_computed_tokens <= branch.num_tokens
                assert branch.num_computed_tokens <= table.num_stored or not self.keep_computed

    def _note_peak(self, live: Live) -> None:
        """Note how many bytes of blocks its branches hold, before any is given back: in between
        they only get more."""
        held = self._kv.bytes_held(live.tables.values())
        live.request.peak_bytes = max(live.request.peak_bytes, held)

    def _release(self, live: Live, branch: Branch) -> None:
        """Give back the blocks of a branch; with `keep_computed` its tokens can still be found."""
        live.waits.pop(branch, None)
        table = live.tables.pop(branch, None)
        if table is not None:
            self._kv.free(table, branch.tokens if self.keep_computed else None)

    def _resume(self, live: Live, branch: Branch) -> None:
        """Let a branch go on from what its blocks hold; rows whose values nobody took run again."""
        table = live.tables.get(branch)
        stored = table.num_stored if table else 0
        computed = min(branch.num_computed_tokens, stored, branch.num_tokens - 1)
        left_behind = False
        if live.request.needs_every_row:
            computed = min(computed, len(live.request.row_values))
            # Rows that run again store nothing: a window may have let go what they read.
            left_behind = self._lets_go and computed < stored
        if table is not None and (left_behind or not self._kv.can_run(table, computed)):
            self._release(live, branch)
            computed = 0
        branch.num_computed_tokens = computed


def _rank(live: Live) -> tuple[int, int]:
    return live.rank
