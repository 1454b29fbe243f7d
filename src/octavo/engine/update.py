"""Update: the fourth verb. What was decided is applied: computed rows are committed, tokens
appended, branches forked, dropped and ended; and the step is written down.

Only what was accepted is committed, so that nothing else is ever found. What raises while one
request is updated ends that request alone. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from octavo.batch import StepOutput
from octavo.engine.decoding.decoding import Continuation, Decision
from octavo.engine.live import Live, LiveRequests
from octavo.engine.step import ScheduledBranch, StepPlan
from octavo.engine.step_budget import StepBudget
from octavo.engine.step_log import StepLog
from octavo.kv_cache.cache import KVCache


class Updater:
    def __init__(
        self,
        requests: LiveRequests,
        kv: KVCache,
        budget: StepBudget,
        log: StepLog,
        clock: Callable[[], float],
    ) -> None:
        self._requests = requests
        self._kv = kv
        self._budget = budget
        self._log = log
        self.clock = clock

    def update(self, plan: StepPlan, out: StepOutput, decisions: Sequence[Decision]) -> None:
        self._kv.commit_transfers()
        if not plan.scheduled:
            return
        items: dict[object, list[ScheduledBranch]] = {each.request: [] for each in decisions}
        for item in plan.scheduled:
            items[item.branch.request].append(item)
        for decision in decisions:
            if decision.error is None:
                self._commit(self._requests.by_request[decision.request], items[decision.request])
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
        num_waiting = len(self._requests.waiting)
        self._log.note(plan, out, counts, seconds=seconds, num_waiting=num_waiting)

    def _commit(self, live: Live, items: Sequence[ScheduledBranch]) -> None:
        for item in items:
            self._requests.commit(live, item.branch, item.end)

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
