"""Scheduler: which branches run in the next step, how many tokens of each, in which blocks.

One rule: a branch catches its `num_computed_tokens` up to its `num_tokens`; there is no prefill
phase and no decode phase. Knows ids, counts and the time that rows take; sees no text, no arrays.

1. Sequences with one token to compute run first: decodes ride along with every prompt.
2. Prompts follow in order of arrival (priority first), as many rows as fit the step's time.
   Priority orders who is admitted and who gives way; it takes no seat from one that runs.
3. A request is admitted when the blocks of its tokens can be had, beside what the running ones need
   to reach their next token. It waits while a running one computes blocks that it could share.
4. Without room for a running one, the one that came last gives up its blocks and waits again; they
   stay findable until they are needed. While blocks are copied there are more of them for a moment:
   then the last one lets a step pass. The longest answer of every request fits the pool alone, so
   the one that came first always ends.

A plan changes nothing but tables: what did not run is planned again (`commit` books what did).
"""

from __future__ import annotations

from bisect import insort
from dataclasses import replace

from octavo.engine.cache_report import cache_record, miss_reason
from octavo.engine.demand import Demand, live, seats
from octavo.engine.leaders import Leaders
from octavo.engine.step_budget import OpenStep, StepBudget
from octavo.engine.step_plan import ScheduledBranch, StepPlan
from octavo.errors import OutOfMemoryError, UsageError, counted
from octavo.kv_cache.manager import BlockTable, Copy, KVCacheManager
from octavo.kv_cache.names import Namespace
from octavo.kv_cache.prefix_index import Match, Node
from octavo.records import CacheReason
from octavo.request import Branch, FinishReason, Request

_ALL_ROWS_CHUNK = 128  # rows of a chunk whose every row gives logits: 25 MB at a vocabulary of 49k
_LOOKED_AT = 256  # waiting requests that a step considers; the others are behind all of them


class Scheduler:
    def __init__(
        self,
        kv: KVCacheManager,
        budget: StepBudget,
        *,
        max_num_seqs: int,
        prefix_cache: bool = True,
        keep_computed: bool = True,
        longest_prefix_first: bool = False,
    ) -> None:
        """`prefix_cache=False` shares nothing between requests; `keep_computed=False` forgets K and
        V after every token: the run without a cache."""
        self._kv = kv
        self._budget = budget
        self._max_num_seqs = max_num_seqs
        self._prefix_cache = prefix_cache and keep_computed
        self._keep_computed = keep_computed
        self._longest_prefix_first = longest_prefix_first
        self._waiting: list[Request] = []  # by _rank
        self._running: list[Request] = []  # by _rank
        self._roots: dict[Request, Node] = {}  # of every request that is waiting or running
        self._tables: dict[Branch, BlockTable] = {}  # of every branch that has begun
        self._leaders = Leaders(kv.block_size)
        self._demand = Demand(kv, keep_computed=keep_computed)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def running(self) -> list[Request]:
        return list(self._running)

    @property
    def requests(self) -> list[Request]:
        """All that have not ended."""
        return [*self._running, *self._waiting]

    @property
    def tables(self) -> list[BlockTable]:
        return list(self._tables.values())

    def num_blocks(self, request: Request) -> int:
        """Different blocks that the request's branches hold."""
        held = [self._tables[s].blocks for s in request.branches if s in self._tables]
        return len(held[0]) if len(held) == 1 else len(set().union(*held))

    def add(self, request: Request, namespace: Namespace) -> None:
        """Queue a request whose tokens others of the namespace, and of its salt, may find. Raises
        UsageError, and OutOfMemoryError, with both numbers, if it can never fit."""
        if request.params.beam_width and not self._keep_computed:
            raise UsageError("beam_width needs the KV cache: leave kv_cache=False out")
        answers = "beam_width" if request.params.beam_width else "n"
        if request.width > self._max_num_seqs:
            raise UsageError(
                f"{answers}={request.width}: a step runs at most "
                f"{counted(self._max_num_seqs, 'sequence')}: "
                f"lower {answers} or raise max_num_seqs"
            )
        if (request.params.beam_width or 0) > self._budget.max_rows:
            raise UsageError(
                f"beam_width={request.width}: beams go on together, and a step runs at most "
                f"{counted(self._budget.max_rows, 'token')}: "
                "lower beam_width or raise max_batch_tokens"
            )
        needed = self._demand.longest(request)
        room = self._kv.pool.num_blocks - self._kv.pool.max_pinned
        if needed > room:
            lower = [f"lower {answers}"] if request.width > 1 else []
            if self._demand.longest(request, max_tokens=1) <= room:
                lower.append("lower max_tokens")
            raise OutOfMemoryError(
                f"the request may need {needed:,} KV blocks of {self._kv.block_size} tokens, "
                f"the pool has {room:,}: {' or '.join([*lower, 'raise kv_memory'])}"
            )
        # Without a prefix cache each request is a namespace of its own, closed at its end.
        salt = request.options.cache_salt if self._prefix_cache else str(request.id)
        self._roots[request] = self._kv.index.root(replace(namespace, salt=salt))
        insort(self._waiting, request, key=_rank)

    def schedule(self, only: Request | None = None) -> StepPlan:
        """The next step; `only` one request of those running, if it is given."""
        draft = _Draft(self._budget.open())
        running = [r for r in self._running if only in (None, r)]
        for request in running:
            self._plan_decodes(request, draft)
        for request in running:
            if request not in draft.preempted:
                self._plan_prompts(request, draft)
        if only is None and not draft.preempted and not draft.is_full:
            self._admit(draft)
        return StepPlan(tuple(draft.items.values()), tuple(self._copies()), len(draft.preempted))

    def commit_copies(self) -> None:
        """The copies of the plan are made: what they were made from is needed no more."""
        for table in self._tables.values():
            self._kv.commit_copies(table)

    def commit(self, item: ScheduledBranch) -> None:
        """Rows of one branch ran: its K and V are in the pages."""
        branch, table = item.branch, self._tables[item.branch]
        if self._keep_computed:
            self._kv.commit(table, branch.tokens, item.end)
            branch.num_computed_tokens = item.end

    def fork(self, branch: Branch, index: int) -> Branch:
        """Another branch of the same request, with the same tokens, sharing their blocks."""
        request = branch.request
        copy = Branch(request, index, list(branch.tokens), branch.num_computed_tokens)
        table = self._tables[branch]
        self._tables[copy] = (
            self._kv.fork(table) if self._keep_computed else self._kv.begin(table.root, NO_MATCH)
        )
        request.branches.append(copy)
        return copy

    def finish_branch(self, branch: Branch, reason: FinishReason) -> None:
        """End one branch, wherever it is; what it computed stays findable. A second end is a bug
        of the caller."""
        assert branch.finish_reason is None
        branch.finish_reason = reason
        self._release(branch)

    def drop(self, branch: Branch) -> None:
        """A beam that lost: its blocks go back, and it is no answer of its request."""
        branch.request.branches.remove(branch)
        self._kv.free(self._tables.pop(branch))

    def finish(self, request: Request, reason: FinishReason) -> None:
        """End a request and those of its branches that have not ended."""
        assert not request.finished
        for branch in request.branches:
            if branch.finish_reason is None:
                self.finish_branch(branch, reason)
        request.finished = True
        (self._running if request in self._running else self._waiting).remove(request)
        root = self._roots.pop(request)
        if not self._prefix_cache:
            self._kv.close(root)

    def recover(self) -> None:
        """After an exception anywhere: queues and tables agree again, and the pool with them. A
        request that lost its place waits; one that lost its blocks computes them again."""
        self._roots = {r: root for r, root in self._roots.items() if not r.finished}
        running = dict.fromkeys(r for r in self._running if r in self._roots)
        self._running = sorted(running, key=_rank)
        self._waiting = sorted(self._roots.keys() - running.keys(), key=_rank)
        going_on = {s for r in self._running for s in live(r)}
        self._tables = {s: t for s, t in self._tables.items() if s in going_on and t.blocks}
        self._kv.recover(self._tables.values())
        for request in self._roots:
            for branch in live(request):
                table = self._tables.get(branch)
                stored = table.num_stored if table else 0
                computed = min(branch.num_computed_tokens, stored, branch.num_tokens - 1)
                if request.needs_all_rows:  # rows whose logits nobody took run again
                    computed = min(computed, max(0, len(request.prompt_logprobs) - 1))
                branch.num_computed_tokens = computed
        self._leaders.retain({s for r in self._roots for s in live(r)})

    def check_integrity(self) -> None:
        """Tables and pool agree; only what runs has tables."""
        self._kv.check_integrity(self._tables.values())
        assert self._tables.keys() <= {s for r in self._running for s in live(r)}
        assert self._roots.keys() == set(self.requests)
        self._leaders.check_integrity({s for r in self.requests for s in r.branches})
        for queue in (self._running, self._waiting):
            assert queue == sorted(queue, key=_rank)
        for branch, table in self._tables.items():
            assert branch.num_computed_tokens <= branch.num_tokens
            assert branch.num_computed_tokens <= table.num_stored or not self._keep_computed

    def _plan_decodes(self, request: Request, draft: _Draft) -> None:
        """One row for each branch that has one token to go; beams go on together."""
        going_on = live(request)
        ready = [s for s in going_on if s in self._tables and _missing(s) == 1]
        if request.params.beam_width and len(ready) < len(going_on):
            return
        if len(ready) > draft.step.rows_left and request.params.beam_width:
            return
        for branch in ready:
            if draft.step.rows_left == 0 or request in draft.preempted:
                return
            if not self._plan(branch, branch.num_tokens, draft):
                for beam in ready if request.params.beam_width else ():
                    draft.items.pop(beam, None)
                return

    def _plan_prompts(self, request: Request, draft: _Draft) -> None:
        for branch in live(request):
            if request in draft.preempted:
                return
            if branch not in self._tables:
                if self._leaders.is_waiting(branch, self._tables):
                    continue
                match = self._match(branch)
                if self._must_wait(branch, match):
                    continue
                self._begin(branch, match)
            if branch not in draft.items:
                self._plan_chunk(branch, draft)

    def _plan_chunk(self, branch: Branch, draft: _Draft) -> None:
        request = branch.request
        begin, end = branch.num_computed_tokens, branch.num_tokens
        if request.params.beam_width and len(request.branches) > 1:
            end -= 1  # the last row waits for the other beams
        if end <= begin or draft.step.rows_left == 0:
            return
        if not self._keep_computed:  # a branch is computed whole, in a step with room for it
            if end - begin > draft.step.rows_left:
                return
        else:
            if request.needs_all_rows:
                end = min(end, begin + _ALL_ROWS_CHUNK)
            end = draft.step.fit(begin, end)
        if end > begin:
            self._plan(branch, end, draft)

    def _plan(self, branch: Branch, end: int, draft: _Draft) -> bool:
        """Reserve the slots of the rows up to `end`, if need be from those that came last. False:
        the request itself came last."""
        table = self._tables[branch]
        while not self._kv.reserve(table, end):
            victim = self._running[-1]
            if victim is branch.request and self._copies():
                draft.is_full = True  # until they are made
                return False
            self._preempt(victim, draft)
            if victim is branch.request:
                return False
        begin = branch.num_computed_tokens
        draft.step.take(begin, end)
        draft.items[branch] = ScheduledBranch(branch, begin, end, table.num_stored, table.blocks)
        return True

    def _copies(self) -> list[Copy]:
        return [c for table in self._tables.values() for c in table.copies]

    def _preempt(self, request: Request, draft: _Draft) -> None:
        """Take back its blocks; it waits again, with the tokens that it has."""
        for branch in request.branches:
            draft.items.pop(branch, None)
            if branch.finish_reason is None and branch in self._tables:
                self._release(branch)
                branch.num_computed_tokens = 0
        request.num_preemptions += 1
        draft.preempted.append(request)
        self._running.remove(request)
        insort(self._waiting, request, key=_rank)

    def _admit(self, draft: _Draft) -> None:
        taken = sum(seats(r) for r in self._running)
        if not self._waiting or draft.step.rows_left == 0 or taken >= self._max_num_seqs:
            return
        room = self._kv.pool.num_free - sum(self._outstanding(r) for r in self._running)
        for request in self._candidates():
            branch = live(request)[0]
            if self._leaders.is_waiting(branch, self._tables):
                continue  # for a running one, so those behind it need not wait too
            match = self._match(branch)
            if self._must_wait(branch, match):
                continue
            missing = self._demand.to_begin(request, match)
            if missing > room or taken + seats(request) > self._max_num_seqs:
                return
            begin = min(match.num_tokens, branch.num_tokens - 1)
            if draft.step.fit(begin, branch.num_tokens) == begin:
                return  # no time left in this step
            room -= missing
            taken += seats(request)
            self._waiting.remove(request)
            insort(self._running, request, key=_rank)
            self._note_cache(request, match)
            self._begin(branch, match)
            self._plan_prompts(request, draft)
            if draft.preempted:
                return

    def _outstanding(self, request: Request) -> int:
        """Blocks that a running request still takes to reach its next token."""
        going_on = live(request)
        begun = [s for s in going_on if s in self._tables]
        others = [s for s in going_on if s not in self._tables]
        taken = sum(self._demand.to_go_on(s, self._tables[s]) for s in begun)
        return taken + sum(self._demand.to_start(s, self._match(s)) for s in others)

    def _candidates(self) -> list[Request]:
        first = self._waiting[:_LOOKED_AT]
        if not self._longest_prefix_first:
            return first
        found = {r: self._match(r.branches[0]).num_tokens for r in first}
        return sorted(first, key=lambda r: (r.options.priority, -found[r], r.id))

    def _match(self, branch: Branch) -> Match:
        request = branch.request
        if not self._keep_computed or request.needs_all_rows:
            return NO_MATCH
        return self._kv.index.match(self._roots[request], branch.tokens, branch.num_tokens)

    def _must_wait(self, branch: Branch, match: Match) -> bool:
        """Is a running branch about to compute whole blocks that this one could share?"""
        if not self._keep_computed or branch.request.needs_all_rows:
            return False
        root = self._roots[branch.request]
        candidates = [s for s, table in self._tables.items() if table.root is root]
        return self._leaders.must_wait(branch, match.num_tokens, candidates)

    def _note_cache(self, request: Request, match: Match) -> None:
        """Say once, when a request first begins, what was found of its prompt and why not more."""
        if request.cache is not None:
            return
        reason: CacheReason | None = CacheReason.DISABLED
        if self._prefix_cache:
            reason = miss_reason(self._kv.index, self._roots[request], request, match)
        request.cache = cache_record(request, reason, match, self._budget.seconds)

    def _begin(self, branch: Branch, match: Match) -> None:
        table = self._kv.begin(self._roots[branch.request], match)
        self._tables[branch] = table
        # The last token runs in any case, since its output is what is wanted.
        branch.num_computed_tokens = min(table.num_stored, branch.num_tokens - 1)

    def _release(self, branch: Branch) -> None:
        """Its blocks go back, findable with all that they hold."""
        self._leaders.forget(branch)
        table = self._tables.pop(branch, None)
        if table is not None:
            if self._keep_computed:
                self._kv.register_tail(table, branch.tokens)
            self._kv.free(table)


class _Draft:
    """A plan in the making."""

    def __init__(self, step: OpenStep) -> None:
        self.step = step
        self.items: dict[Branch, ScheduledBranch] = {}
        self.preempted: list[Request] = []
        self.is_full = False


NO_MATCH = Match([], None, 0)


def _missing(branch: Branch) -> int:
    return branch.num_tokens - branch.num_computed_tokens


def _rank(request: Request) -> tuple[int, int]:
    return request.options.priority, request.id
