"""Update: the fourth verb. What was decided is applied: computed rows are committed, tokens
appended, branches forked, dropped and ended; and a StepRecord of a step that had rows is kept.

Only what was accepted is committed, so that nothing else is ever found. What raises while one
request is updated ends that request alone. Decides nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from octavo.batch import StepOutput
from octavo.engine.live import Live, LiveRequests
from octavo.engine.step import Continuation, Decision, StepPlan
from octavo.engine.step_budget import StepBudget
from octavo.kv_cache.cache import KVCache, KVCounts
from octavo.records import StepRecord

_NUM_RECORDS = 65536


class Updater:
    def __init__(
        self,
        requests: LiveRequests,
        kv: KVCache,
        budget: StepBudget,
        clock: Callable[[], float],
        op_names: Sequence[str],
    ) -> None:
        self.records: deque[StepRecord] = deque(maxlen=_NUM_RECORDS)
        self._requests = requests
        self._kv = kv
        self._budget = budget
        self._op_names = op_names
        self.clock = clock

    def update(self, plan: StepPlan, out: StepOutput, decisions: Sequence[Decision]) -> None:
        self._kv.commit_transfers()
        if not plan.scheduled:
            return
        accepted = {each.request for each in decisions if each.error is None}
        for item in plan.scheduled:
            if item.branch.request in accepted:
                live = self._requests.by_request[item.branch.request]
                self._requests.commit(live, item.branch, item.end)
        counts = self._kv.counts()  # all rows are stored, and nothing has ended yet
        for decision in decisions:
            live = self._requests.by_request[decision.request]
            try:
                self._apply(live, decision)
            except Exception as error:
                if live.ending is None:
                    decision.request.error, live.ending = error, "error"
                self._requests.recover()
                break  # the last rows of those behind it run again
        seconds = self.clock() - plan.begun
        self._budget.observe([(s.begin, s.end) for s in plan.scheduled], seconds)
        self._note(plan, out, counts, seconds)

    def _apply(self, live: Live, decision: Decision) -> None:
        request = live.request
        if decision.error is not None:
            self._requests.fail(live, decision.error)
            return
        live.is_half = True
        request.row_values += decision.row_values
        if decision.continuations:
            self._go_on(live, decision.continuations)
        live.decoding = decision.decoding
        if decision.continuations or decision.end:
            request.times.note_token(self.clock())
        if decision.end or not request.live_branches:
            live.ending = decision.end or "stop"
        live.is_half = False
        if live.ending is not None:
            self._requests.end(live, live.ending)

    def _go_on(self, live: Live, continuations: Sequence[Continuation]) -> None:
        """Append a token to each branch that goes on, forked where a parent has several."""
        drawn_from = {each.parent for each in continuations}
        if live.decoding.goes_together:
            for lost in [b for b in live.request.branches if b not in drawn_from]:
                self._requests.drop(live, lost)
        branches = []
        for each in continuations:
            branch = each.parent
            if branch not in drawn_from:
                branch = self._requests.fork(live, branch, each.answer)
            branch.index = each.answer
            branches.append(branch)
            drawn_from.discard(branch)
        for branch, each in zip(branches, continuations, strict=True):
            branch.tokens.append(each.token)
            if each.logprobs is not None:
                branch.logprobs.append(each.logprobs)
            self._requests.result.grown.append(branch)
            if each.end is not None:
                self._requests.finish_branch(live, branch, each.end)
        live.request.branches.sort(key=lambda branch: branch.index)

    def _note(self, plan: StepPlan, out: StepOutput, counts: KVCounts, seconds: float) -> None:
        """Keep the record of a step; `counts` are the cache's while all rows are stored and nothing
        has ended."""
        assert plan.batch is not None
        by_class: dict[str, int] = {}
        for name, ns in zip(self._op_names, out.op_ns, strict=False):
            by_class[name] = by_class.get(name, 0) + int(ns)
        self.records.append(
            StepRecord(
                step=self.records[-1].step + 1 if self.records else 0,
                num_requests=len(plan.requests),
                computed_tokens=len(plan.batch.tokens),
                kv_read_tokens=sum(item.begin for item in plan.scheduled),
                output_rows=len(plan.batch.output_rows),
                seconds=seconds,
                forward_seconds=out.seconds,
                num_waiting=len(self._requests.waiting),
                num_preempted=plan.num_preempted,
                kv_blocks_used=counts.blocks_used,
                kv_blocks_kept=counts.blocks_cached,
                kv_blocks_total=counts.blocks_total,
                kv_slots_unfilled=counts.slots_unfilled,
                kv_blocks_copied=sum(each.kind == "copy" for each in plan.transfers),
                op_ns=tuple(by_class.items()),
            )
        )
