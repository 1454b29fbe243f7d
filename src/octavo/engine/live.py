"""LiveRequests: the one registry of requests that have not ended, and where they and their branches
begin, part and end.

Knows requests and block tables. Decides nothing: the scheduler says who runs, the sampler how they
go on. After an exception anywhere, `recover` makes registry, queues and cache agree again.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from math import inf

from octavo.engine.counters import Counters
from octavo.engine.nouns import Branch, Request
from octavo.engine.step import StepResult
from octavo.kv_cache.cache import NO_MATCH, BlockTable, KVCache, Match
from octavo.request import FinishReason


class LiveRequests:
    def __init__(self, kv: KVCache, *, keep_computed: bool) -> None:
        """`keep_computed=False` forgets K and V after every token: the run without a cache."""
        self.keep_computed = keep_computed
        self.all: dict[Request, None] = {}  # as they came
        self.waiting: list[Request] = []  # by rank
        self.running: list[Request] = []  # by rank
        self.result = StepResult()  # what was not told yet
        self.counters = Counters()
        self.next_deadline = inf
        self.num_changes = 0  # how often a branch got its blocks, or gave them back
        self._kv = kv
        # Windowed groups give blocks back in a commit.
        self._lets_go = any(not group.keeps_all for group in kv.groups)

    def add(self, request: Request) -> None:
        self.all[request] = None
        insort(self.waiting, request, key=_rank)
        self.next_deadline = min(self.next_deadline, request.deadline)

    def admit(self, request: Request) -> None:
        """Move a request from the waiting to the running ones."""
        self.waiting.remove(request)
        request.is_running = True
        insort(self.running, request, key=_rank)

    def preempt(self, request: Request) -> None:
        """Take back its blocks; it waits again, with the tokens that it has."""
        self._note_peak(request)
        for branch in request.live_branches:
            self._release(branch)
            branch.num_computed_tokens = 0
        request.num_preemptions += 1
        self.counters.preemptions += 1
        request.is_running = False
        self.running.remove(request)
        insort(self.waiting, request, key=_rank)

    def begin(self, branch: Branch, match: Match) -> None:
        """Give a branch a block table, with what was found of its tokens."""
        request = branch.request
        # Nothing goes on where the prompt ends of a single answer that nobody finds.
        is_alone = request.is_private and request.width == 1
        num_prompt = 0 if is_alone else request.num_prompt_tokens
        table = branch.table = self._kv.begin(request.root, match, num_prompt)
        self.num_changes += 1
        # The last token runs in any case, since its output is what is wanted.
        branch.num_computed_tokens = min(table.num_stored, branch.num_tokens - 1)

    def commit(self, branch: Branch, accepted: int) -> None:
        """K and V of the first `accepted` tokens of a branch are in its blocks."""
        if self.keep_computed:
            assert branch.table is not None
            if self._lets_go or (
                len(branch.request.branches) > 1 and self._becomes_whole(branch, accepted)
            ):
                self._note_peak(branch.request)
            self._kv.commit(branch.table, branch.tokens, accepted)
            branch.num_computed_tokens = accepted

    def _becomes_whole(self, branch: Branch, accepted: int) -> bool:
        """Whether one of its blocks becomes whole, and may be replaced by an equal one."""
        size = self._kv.block_size
        return branch.num_computed_tokens // size < accepted // size

    def fork(self, branch: Branch, index: int) -> Branch:
        """Another branch of the same request, with the same tokens, sharing their blocks."""
        assert branch.table is not None
        request = branch.request
        twin = Branch(request, index, list(branch.tokens), branch.num_computed_tokens)
        if branch.constraint is not None:
            twin.constraint = branch.constraint.fork()
        if self.keep_computed:
            twin.table = self._kv.fork(branch.table)
        else:
            twin.table = self._kv.begin(request.root, NO_MATCH)
        request.branches.append(twin)
        self.num_changes += 1
        return twin

    def drop(self, branch: Branch) -> None:
        """A branch that lost: its blocks go back, and it is no answer of its request."""
        assert branch.table is not None
        self._note_peak(branch.request)
        branch.request.branches.remove(branch)
        self.num_changes += 1
        self._kv.free(branch.table)
        branch.table = None

    def finish_branch(self, branch: Branch, reason: FinishReason) -> None:
        """End one branch, wherever it is; what it computed stays findable. A second end is a bug
        of the caller."""
        assert branch.finish_reason is None
        self._note_peak(branch.request)
        branch.finish_reason = reason
        self._release(branch)

    def end(self, request: Request, reason: FinishReason, *, tell: bool = True) -> None:
        """End a request: branches that live end with `reason`, and what the decoding makes of them
        are its answers. `tell`: the next result names it. May be called again for an end that an
        exception broke off."""
        request.ending = request.ending or reason
        for branch in request.live_branches:
            self.finish_branch(branch, reason)
        request.decoding.close(request, reason)
        if request.is_private:
            self._kv.close(request.root)
        request.finished = True
        queue = self.running if request.is_running else self.waiting
        if request in queue:
            queue.remove(request)
        if tell and request not in self.result.finished:
            self.result.finished.append(request)
        if request in self.all:
            del self.all[request]
            self.counters.end(request)

    def fail(self, request: Request, error: Exception) -> None:
        """End a request with what it caused."""
        request.error = error
        self.end(request, "error")

    def end_late(self, now: float) -> None:
        """End what is past its deadline."""
        if now < self.next_deadline:
            return
        late = [request for request in self.all if request.deadline <= now]
        for request in sorted(late, key=lambda request: request.deadline):
            self.end(request, "deadline")
        self.next_deadline = min((request.deadline for request in self.all), default=inf)

    def take_result(self) -> StepResult:
        result, self.result = self.result, StepResult()
        return result

    def tables(self) -> Iterable[BlockTable]:
        return (table for request in self.running for table in request.tables)

    def recover(self) -> None:
        """After an exception anywhere: a request that lost its blocks computes them again, one
        that was half changed ends, and an end that had begun is brought to its end."""
        self.num_changes += 1
        every = list(self.all)
        self.running = sorted((r for r in every if r.is_running), key=_rank)
        self.waiting = sorted((r for r in every if not r.is_running), key=_rank)
        for request in every:
            for branch in request.branches:
                if branch.finish_reason is not None:
                    branch.table = branch.wait = None
                elif not request.is_running:
                    branch.table = None
        self._kv.recover(list(self.tables()))
        for request in every:
            for branch in request.live_branches:
                self._resume(branch)
        for request in every:
            if request.is_half_updated or request.ending or not request.live_branches:
                self.end(request, request.ending or "abort")

    def check_integrity(self) -> None:
        """Registry, queues, tables and cache agree; only what runs has tables."""
        self._kv.check_integrity(list(self.tables()))
        queued = [*self.running, *self.waiting]
        assert len(queued) == len(self.all)
        assert set(queued) == self.all.keys()
        for queue in (self.running, self.waiting):
            assert queue == sorted(queue, key=_rank)
            assert all(request.is_running == (queue is self.running) for request in queue)
        assert all(self.next_deadline <= request.deadline for request in queued)
        for request in queued:
            assert not request.finished
            assert not request.is_half_updated
            assert request.ending is None
            assert request.is_running or not request.tables
            for branch in request.branches:
                if branch.finish_reason is not None:
                    assert (branch.table, branch.wait) == (None, None)
                if branch.table is not None:
                    computed, stored = branch.num_computed_tokens, branch.table.num_stored
                    assert computed <= branch.num_tokens
                    assert computed <= stored or not self.keep_computed

    def _note_peak(self, request: Request) -> None:
        """Note how many bytes of blocks its branches hold, before any is given back: in between
        they only get more."""
        request.peak_bytes = max(request.peak_bytes, self._kv.bytes_held(request.tables))

    def _release(self, branch: Branch) -> None:
        """Give back the blocks of a branch; with `keep_computed` its tokens can still be found."""
        table, branch.table, branch.wait = branch.table, None, None
        self.num_changes += 1
        if table is not None:
            self._kv.free(table, branch.tokens if self.keep_computed else None)

    def _resume(self, branch: Branch) -> None:
        """Let a branch go on from what its blocks hold; rows whose values nobody took run again."""
        request, table = branch.request, branch.table
        stored = table.num_stored if table else 0
        computed = min(branch.num_computed_tokens, stored, branch.num_tokens - 1)
        if request.needs_every_row:
            computed = min(computed, request.num_values)
        if table is not None and not self._kv.can_run(table, computed):
            self._release(branch)
            computed = 0
        branch.num_computed_tokens = computed


def _rank(request: Request) -> tuple[int, int]:
    return request.rank
