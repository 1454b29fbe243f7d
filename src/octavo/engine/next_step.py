"""NextStep: the plan of a step whose branches are those of the step before, each one token on.

Most steps are such: nothing began, ended or parted in between. What the scheduler would plan anew
is the plan before, moved on, for a third of the work. Where it is not, this plans nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from octavo.batch import next_batch
from octavo.engine.live import LiveRequests
from octavo.engine.step import StepPlan
from octavo.kv_cache.cache import KVCache


class NextStep:
    def __init__(self, requests: LiveRequests, kv: KVCache) -> None:
        self._requests = requests
        self._kv = kv
        self._plan: StepPlan | None = None  # the step before, if one like it may follow
        self._views: Sequence[Sequence[Sequence[int]]] = ()  # of its tables, as it ran
        self._has_slot = False  # more answers may grow beside those of the plan
        self._num_changes = 0  # as it was planned

    def keep(self, plan: StepPlan, *, has_slot: bool) -> None:
        """Move this plan on in the next step, if it has one row of each branch that runs, its last,
        and each goes on by itself."""
        self._plan = None
        running = self._requests.running
        if (
            plan.batch is None
            or plan.num_preempted
            or len(plan.batch.tokens) != len(plan.spans)
            or len(plan.head_rows) != len(plan.spans)
            or list(plan.spans) != [b for request in running for b in request.live_branches]
            or not self._requests.keep_computed
        ):
            return
        starts = plan.batch.write_starts.tolist()
        if starts == plan.batch.positions.tolist() and all(
            request.draws and request.every_row is None and not request.decoding.goes_together
            for request in plan.requests
        ):
            self._plan, self._has_slot = plan, has_slot
            self._num_changes = self._requests.num_changes
            self._views = [self._kv.view(b.table) for b in plan.spans if b.table is not None]

    def drop(self) -> None:
        """Move nothing on: another step came in between, or all has ended."""
        self._plan, self._views = None, ()

    def plan(self, begun: float) -> StepPlan | None:
        """The step at hand; None: it has to be planned anew."""
        plan, requests, kv = self._plan, self._requests, self._kv
        if plan is None or requests.num_changes != self._num_changes:
            return None
        if requests.waiting and self._has_slot:
            return None
        spans, views = {}, []
        for branch, (_, begin) in plan.spans.items():
            table, end = branch.table, len(branch.tokens)
            if branch.num_computed_tokens != begin or end != begin + 1:
                return None  # the plan did not run
            assert table is not None
            if not kv.reserve(table, end):
                return None  # one has to give way
            spans[branch] = begin, end
            views.append(kv.view(table))
        plan.begun, plan.spans, plan.transfers = begun, spans, tuple(kv.transfers())
        asked = []
        for row in plan.head_rows:
            row.position += 1
            want = row.branch.request.decoding.want(row.branch)
            assert want is not None
            row.asked = want
            asked.append(want)
        assert plan.batch is not None
        plan.batch = next_batch(
            plan.batch,
            [branch.tokens[-1] for branch in spans],
            [begin for begin, _ in spans.values()],
            {i: view for i, view in enumerate(views) if view is not self._views[i]},
            asked,
        )
        self._views = views
        return plan
