"""NextStep: the plan of a step whose branches are those of the step before, each one token on.

Most steps are such: nothing began, ended or parted in between. What the scheduler would plan anew
is the plan before, moved on, for a sixth of the work. Where it is not, this plans nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from octavo.batch import next_batch
from octavo.engine.decoding.uniforms import RowUniforms
from octavo.engine.live import LiveRequests
from octavo.engine.step import HeadRow, StepPlan
from octavo.kv_cache.cache import KVCache


class NextStep:
    def __init__(self, requests: LiveRequests, kv: KVCache) -> None:
        self._requests = requests
        self._kv = kv
        self._plan: StepPlan | None = None  # the step before, if one like it may follow
        self._views: list[Sequence[Sequence[int]]] = []  # of its tables, as it ran
        self._asking: list[HeadRow] = []  # rows of it that may ask for something else each time
        self._uniforms = RowUniforms(())
        self._has_slot = False  # more answers may grow beside those of the plan
        self._num_changes = 0  # as it was planned

    def keep(self, plan: StepPlan, *, has_slot: bool) -> None:
        """Keep this plan, to move it on in the next step, if it has one row of each branch that
        runs, its last, and each goes on by itself."""
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
            self._asking = [r for r in plan.head_rows if not r.branch.request.asks_alike]
            self._uniforms = RowUniforms(plan.head_rows)

    def drop(self) -> None:
        """Forget the plan: another step came in between, or all has ended."""
        self._plan, self._views, self._asking = None, [], []

    def plan(self, begun: float) -> StepPlan | None:
        """Return the kept plan moved on by a token; None if the step has to be planned anew."""
        plan, requests, kv = self._plan, self._requests, self._kv
        if plan is None or requests.num_changes != self._num_changes:
            return None
        if requests.waiting and self._has_slot:
            return None
        spans, tokens, starts, changed = {}, [], [], {}
        for i, (branch, (_, begin)) in enumerate(plan.spans.items()):
            table, end = branch.table, begin + 1
            if branch.num_computed_tokens != begin or len(branch.tokens) != end:
                return None  # the plan did not run
            assert table is not None
            if not kv.reserve(table, end):
                return None  # one has to give way
            spans[branch] = begin, end
            tokens.append(branch.tokens[begin])
            starts.append(begin)
            view = kv.view(table)
            if view is not self._views[i]:
                changed[i] = self._views[i] = view
        plan.begun, plan.spans, plan.transfers = begun, spans, tuple(kv.transfers())
        for row in plan.head_rows:
            row.position += 1
        asked, changes = None, False
        if self._asking:
            for row in self._asking:
                asks = row.branch.request.decoding.want(row.branch)
                assert asks is not None
                changes = changes or asks.want is not row.asked.want
                row.asked = asks
            asked = [row.asked for row in plan.head_rows]
            if changes:
                self._uniforms = RowUniforms(plan.head_rows)
        assert plan.batch is not None
        positions = np.array(starts, np.int32)
        uniforms = self._uniforms.at(positions)
        plan.batch = next_batch(plan.batch, tokens, positions, changed, asked, uniforms)
        return plan
