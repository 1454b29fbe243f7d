"""Scheduler: which branches run in the next step, how many tokens of each, in which blocks.

One rule: a branch catches its `num_computed_tokens` up to its `num_tokens`; there is no prefill
phase and no decode phase. Knows ids, counts and the time that rows take; sees no text, and leaves
the arrays of a step to `step`.

1. Branches with one token to compute run first: decodes ride along with every prompt.
2. Prompts follow in order of arrival (priority first), as many rows as fit the step's time.
   Priority orders who is admitted and who gives way; it takes no slot from one that runs.
3. Who may begin is `admission`'s to say.
4. Without room for a running one, the one that ranks last gives up its blocks and waits again; they
   stay findable until they are needed. While blocks are copied there are more of them for a moment:
   then the last one lets a step pass. The longest answer of every request fits the budget alone, so
   the one that ranks first always ends.

Nothing is committed here: rows of a plan that did not run are planned again. Ends at a deadline,
preemptions and evictions stand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from octavo.engine.admission import Admission
from octavo.engine.live import Live, LiveRequests
from octavo.engine.step import HeadRow, ScheduledBranch, StepPlan, head_rows, step_batch
from octavo.engine.step_budget import OpenStep, StepBudget
from octavo.kv_cache.cache import KVCache
from octavo.request import Branch, Request

_EVERY_ROW_CHUNK = 128  # rows of a chunk whose every row gives logits: 25 MB at a vocabulary of 49k


class Scheduler:
    def __init__(
        self,
        requests: LiveRequests,
        admission: Admission,
        kv: KVCache,
        budget: StepBudget,
        clock: Callable[[], float],
    ) -> None:
        self.planned: Sequence[Request] = ()  # of the step that runs, once it is planned
        self._requests = requests
        self._admission = admission
        self._kv = kv
        self._budget = budget
        self.clock = clock

    def schedule(self, only: Request | None = None) -> StepPlan:
        """The next step, after what is past its deadline was ended; `only` one running request's,
        if it is given."""
        begun = self.clock()
        self._requests.end_late(begun)
        draft = _Draft(self._budget.open())
        running = [live for live in self._requests.running if only in (None, live.request)]
        for live in running:
            self._plan_decodes(live, draft)
        for live in running:
            if live not in draft.preempted:
                self._plan_prompts(live, draft)
        if only is None and not draft.preempted and not draft.is_full:
            for live, match in self._admission.who_may_begin(draft.step):
                self._requests.admit(live)
                self._requests.begin(live, live.request.live_branches[0], match)
                self._plan_prompts(live, draft)
                if draft.preempted:
                    break
        plan = self._finish_plan(begun, draft)
        self.planned = plan.requests
        return plan

    def _plan_decodes(self, live: Live, draft: _Draft) -> None:
        """Plan one row for each branch that has one token to go, of all or of none where they go
        together."""
        going_on = live.request.live_branches
        ready = [b for b in going_on if b in live.tables and _missing(b) == 1]
        together = live.decoding.goes_together
        if together and (len(ready) < len(going_on) or len(ready) > draft.step.rows_left):
            return
        for branch in ready:
            if draft.step.rows_left == 0 or live in draft.preempted:
                return
            if not self._plan(live, branch, branch.num_tokens, draft):
                for other in ready if together else ():
                    draft.spans.pop(other, None)
                return

    def _plan_prompts(self, live: Live, draft: _Draft) -> None:
        for branch in live.request.live_branches:
            if live in draft.preempted:
                return
            if branch not in live.tables:
                match = self._admission.find(live, branch)
                if match is None:
                    continue
                self._requests.begin(live, branch, match)
            if branch not in draft.spans:
                self._plan_chunk(live, branch, draft)

    def _plan_chunk(self, live: Live, branch: Branch, draft: _Draft) -> None:
        begin, end = branch.num_computed_tokens, branch.num_tokens
        if live.decoding.goes_together and len(live.request.branches) > 1:
            end -= 1  # the last row waits for the other branches
        if end <= begin or draft.step.rows_left == 0:
            return
        if not self._requests.keep_computed:  # computed whole, in a step with room for it
            if end - begin > draft.step.rows_left:
                return
        else:
            if live.request.needs_every_row:
                end = min(end, begin + _EVERY_ROW_CHUNK)
            end = draft.step.fit(begin, end)
        if end > begin:
            self._plan(live, branch, end, draft)

    def _plan(self, live: Live, branch: Branch, end: int, draft: _Draft) -> bool:
        """Reserve the slots of the rows up to `end`, if need be from those that rank last. False:
        the request itself does."""
        while not self._kv.reserve(live.tables[branch], end):
            victim = self._requests.running[-1]
            if victim is live and any(t.kind == "copy" for t in self._kv.transfers()):
                draft.is_full = True  # until they are made
                return False
            self._preempt(victim, draft)
            if victim is live:
                return False
        draft.step.take(branch.num_computed_tokens, end)
        draft.spans[branch] = live, end
        return True

    def _preempt(self, live: Live, draft: _Draft) -> None:
        for branch in live.request.branches:
            draft.spans.pop(branch, None)
        draft.preempted.append(live)
        self._requests.preempt(live)

    def _finish_plan(self, begun: float, draft: _Draft) -> StepPlan:
        scheduled: list[ScheduledBranch] = []
        rows: list[HeadRow] = []
        top_k = first_row = 0
        for branch, (live, end) in draft.spans.items():
            table, begin = live.tables[branch], branch.num_computed_tokens
            blocks = self._kv.view(table)
            samples = end == branch.num_tokens
            item = ScheduledBranch(branch, begin, end, table.num_stored, blocks, samples)
            want = live.decoding.want(branch) if samples else None
            scheduled.append(item)
            rows += head_rows(item, first_row, want)
            first_row += end - begin
            top_k = max(top_k, live.decoding.num_candidates)
        batch = step_batch(scheduled, rows, top_k=top_k) if scheduled else None
        transfers = tuple(self._kv.transfers())
        return StepPlan(begun, transfers, scheduled, rows, batch, len(draft.preempted))


class _Draft:
    """A plan in the making."""

    def __init__(self, step: OpenStep) -> None:
        self.step = step
        self.spans: dict[Branch, tuple[Live, int]] = {}  # and where its rows end
        self.preempted: list[Live] = []
        self.is_full = False


def _missing(branch: Branch) -> int:
    return branch.num_tokens - branch.num_computed_tokens
