"""Scheduler: which branches run in the next step, how many tokens of each, in which blocks.

One rule: a branch catches its `num_computed_tokens` up to its `num_tokens`; there is no prefill
phase and no decode phase. Knows ids, counts and the time that rows take; sees no text, and leaves
the arrays of a step to `make_batch`.

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

from collections.abc import Callable, Iterable, Iterator

from octavo.batch import Asked, Want, make_batch
from octavo.engine.admission import Admission
from octavo.engine.decoding.uniforms import RowUniforms
from octavo.engine.live import LiveRequests
from octavo.engine.next_step import NextStep
from octavo.engine.nouns import Branch, Request
from octavo.engine.step import HeadRow, StepPlan
from octavo.engine.step_budget import StepBudget
from octavo.kv_cache.cache import KVCache

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
        self.planned: Iterable[Request] = ()  # of the step that runs, once it is planned
        self._requests = requests
        self._admission = admission
        self._kv = kv
        self._budget = budget
        self.next_step = NextStep(requests, kv)
        self.clock = clock

    def schedule(self, only: Request | None = None) -> StepPlan:
        """Plan the next step, after requests past their deadline were ended; with `only`, a step of
        that running request alone."""
        begun = self.clock()
        self._requests.end_late(begun)
        plan = self.next_step.plan(begun) if only is None else None
        if plan is None:
            self.next_step.drop()  # it may raise below
            plan = self._plan_anew(begun, only)
            if only is None:
                self.next_step.keep(plan, has_slot=self._admission.has_slot)
        self.planned = plan.requests
        return plan

    def forget(self) -> None:
        """Hold nothing of the last step: what ran in it has ended."""
        self.planned = ()
        self.next_step.drop()

    def _plan_anew(self, begun: float, only: Request | None) -> StepPlan:
        plan = StepPlan(begun)
        self._budget.open()
        running = [each for each in self._requests.running if only in (None, each)]
        rest = [request for request in running if not self._plan_decodes(request, plan)]
        for request in rest:
            if request.is_running:
                self._plan_prompts(request, plan)
        has_room = plan.num_preempted == 0 and not plan.waits_for_copies
        if only is None and has_room and self._requests.waiting:
            for request, match in self._admission.who_may_begin():
                self._requests.admit(request)
                request.begun_at = plan.begun if request.begun_at is None else request.begun_at
                self._requests.begin(request.live_branches[0], match)
                self._plan_prompts(request, plan)
                if plan.num_preempted > 0:
                    break
        self._finish(plan)
        return plan

    def _plan_decodes(self, request: Request, plan: StepPlan) -> bool:
        """Plan one row for each branch that has one token to go, of all or of none where they go
        together. Return whether that is all that the request has."""
        going_on = request.live_branches
        ready = [
            b
            for b in going_on
            if b.table is not None and len(b.tokens) - b.num_computed_tokens == 1
        ]
        together = request.decoding.goes_together
        if together and (len(ready) < len(going_on) or len(ready) > self._budget.rows_left):
            return False
        for branch in ready:
            if self._budget.rows_left == 0 or not request.is_running:
                return False
            if not self._plan(branch, len(branch.tokens), plan):
                for other in ready if together else ():
                    plan.spans.pop(other, None)
                return False
        return len(ready) == len(going_on)

    def _plan_prompts(self, request: Request, plan: StepPlan) -> None:
        for branch in request.live_branches:
            if not request.is_running:
                return
            if branch.table is None:
                match = self._admission.find(branch)
                if match is None:
                    continue
                self._requests.begin(branch, match)
            if branch not in plan.spans:
                self._plan_chunk(branch, plan)

    def _plan_chunk(self, branch: Branch, plan: StepPlan) -> None:
        request = branch.request
        begin, end = branch.num_computed_tokens, branch.num_tokens
        if request.decoding.goes_together and len(request.branches) > 1:
            end -= 1  # the last row waits for the other branches
        if end <= begin or self._budget.rows_left == 0:
            return
        if not self._requests.keep_computed:  # computed whole, in a step with room for it
            if end - begin > self._budget.rows_left:
                return
        else:
            if request.needs_every_row:
                end = min(end, begin + _EVERY_ROW_CHUNK)
            end = self._budget.fit(begin, end)
        if end > begin:
            self._plan(branch, end, plan)

    def _plan(self, branch: Branch, end: int, plan: StepPlan) -> bool:
        """Plan the rows of a branch up to `end`: reserve their slots, and while there is no room
        preempt the request that ranks last. False if that is its own, or if it waits for copies."""
        assert branch.table is not None
        while not self._kv.reserve(branch.table, end):
            victim = self._requests.running[-1]
            if victim is branch.request and any(t.kind == "copy" for t in self._kv.transfers()):
                plan.waits_for_copies = True
                return False
            self._preempt(victim, plan)
            if victim is branch.request:
                return False
        self._budget.take(branch.num_computed_tokens, end)
        plan.spans[branch] = branch.num_computed_tokens, end
        return True

    def _preempt(self, request: Request, plan: StepPlan) -> None:
        for branch in request.branches:
            plan.spans.pop(branch, None)
        plan.num_preempted += 1
        self._requests.preempt(request)

    def _finish(self, plan: StepPlan) -> None:
        """Say what is to be done before the rows run, and what runs, in arrays."""
        plan.transfers = tuple(self._kv.transfers())
        if not plan.spans:
            return
        spans, tables = [], []
        first_row = 0
        for branch, (begin, end) in plan.spans.items():
            assert branch.table is not None
            request = branch.request
            plan.requests.setdefault(request, [])
            spans.append((branch.tokens[begin:end], begin))
            tables.append(branch.table)
            if request.every_row is not None:
                plan.head_rows += _prompt_rows(branch, begin, end, first_row)
            if end == len(branch.tokens):
                plan.caught_up.add(request)
                asked = request.decoding.want(branch)
                if asked is not None:
                    row = first_row + end - 1 - begin
                    plan.head_rows.append(HeadRow(branch, end - 1, row, True, asked))
            first_row += end - begin
        for each in plan.head_rows:
            plan.requests[each.branch.request].append(each)
        plan.batch = make_batch(
            spans,
            list(zip(*map(self._kv.view, tables), strict=True)),
            [row.row for row in plan.head_rows],
            [row.asked for row in plan.head_rows],
            write_starts=[table.num_stored for table in tables],
            top_k=max(request.decoding.num_candidates for request in plan.requests),
            uniforms=RowUniforms(plan.head_rows).at([row.position for row in plan.head_rows]),
        )


def _prompt_rows(branch: Branch, begin: int, end: int, first_row: int) -> Iterator[HeadRow]:
    """Yield the rows of a span that are the prompt's and give a value, of a request that wants
    every row's; the first of the span is row `first_row` of the batch."""
    request = branch.request
    asked = Asked(Want.HIDDEN if request.every_row == "hidden" else Want.LOGITS)
    first = max(begin, request.num_values)  # one that ran again gives nothing new
    for position in range(first, min(end, request.num_rows_wanted)):
        row = first_row + position - begin
        yield HeadRow(branch, position, row, False, asked)
