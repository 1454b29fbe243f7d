"""Update: the fourth verb. What was decided is applied: computed rows are committed, tokens
appended, branches forked, dropped and ended; and a StepRecord of a step that had rows is kept.

Only what was accepted is committed, so that nothing else is ever found. What raises while one
request is updated ends that request alone. Decides nothing; but where a constraint is whole with a
token, its answer ends here, for a state of a constraint moves on only when a token is appended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from octavo.batch import StepOutput
from octavo.engine.live import LiveRequests
from octavo.engine.nouns import Branch, Request
from octavo.engine.step import Continuation, Decision, StepPlan
from octavo.engine.step_budget import StepBudget
from octavo.kv_cache.cache import KVCache, KVCounts
from octavo.records import StepRecord

NUM_RECORDS = 65536
_OBSERVED = 16  # of so many steps of decodes alone one teaches what the others do


class Updater:
    def __init__(
        self,
        requests: LiveRequests,
        kv: KVCache,
        budget: StepBudget,
        clock: Callable[[], float],
        op_names: Sequence[str],
    ) -> None:
        self.records: deque[StepRecord] = deque(maxlen=NUM_RECORDS)
        self._requests = requests
        self._kv = kv
        self._budget = budget
        self._op_names = op_names
        self.clock = clock

    def update(self, plan: StepPlan, out: StepOutput, decisions: Sequence[Decision]) -> None:
        """Commit what ran, apply the decisions, note the step. The rows of a request that did not
        fail are all accepted: their tokens were given, or drawn in an earlier step."""
        self._kv.commit_transfers()
        if not plan.spans:
            return
        failed = {each.request for each in decisions if each.error is not None}
        for branch, (_, end) in plan.spans.items():
            if not failed or branch.request not in failed:
                self._requests.commit(branch, end)
        # All rows are stored, and nothing has ended yet.
        counts, unfilled, now = self._kv.counts(), self._kv.slots_unfilled, self.clock()
        for decision in decisions:
            request = decision.request
            try:
                self._apply(request, decision, now)
            except Exception as error:
                if request.ending is None:
                    request.error, request.ending = error, "error"
                self._requests.recover()
                break  # the last rows of those behind it run again
        seconds = self.clock() - plan.begun
        assert plan.batch is not None
        step = self.records[-1].step + 1 if self.records else 0
        if step % _OBSERVED == 0 or len(plan.batch.tokens) > len(plan.spans):
            self._budget.observe(plan.spans.values(), seconds)
        self._note(step, plan, out, counts, unfilled, seconds)

    def _apply(self, request: Request, decision: Decision, now: float) -> None:
        if decision.error is not None:
            self._requests.fail(request, decision.error)
            return
        request.is_half_updated = True
        if decision.row_values:
            request.take(decision.row_values)
        if decision.continuations:
            self._go_on(request, decision.continuations)
        request.decoding = decision.decoding
        if decision.continuations or decision.end:
            request.last_token_at = now
            if request.first_token_at is None:
                request.first_token_at = now
        if decision.end or not request.live_branches:
            request.ending = decision.end or "stop"
        request.is_half_updated = False
        if request.ending is not None:
            self._requests.end(request, request.ending)

    def _go_on(self, request: Request, continuations: Sequence[Continuation]) -> None:
        """Append a token to each branch that goes on, forked where a parent has several."""
        self._requests.counters.generated_tokens += len(continuations)
        if len(request.branches) == len(continuations) == 1:  # as most do: its branch goes on
            request.branches[0].index = continuations[0].answer
            self._append(request.branches[0], continuations[0])
            return
        drawn_from = {each.parent for each in continuations}
        if request.decoding.goes_together:
            for lost in [b for b in request.branches if b not in drawn_from]:
                self._requests.drop(lost)
        branches = []
        for each in continuations:
            branch = each.parent
            if branch not in drawn_from:
                branch = self._requests.fork(branch, each.answer)
            branch.index = each.answer
            branches.append(branch)
            drawn_from.discard(branch)
        for branch, each in zip(branches, continuations, strict=True):
            self._append(branch, each)
        if len(request.branches) > 1:
            # Another one: a list is empty while it is sorted, and other threads look at this.
            request.branches = sorted(request.branches, key=lambda branch: branch.index)

    def _append(self, branch: Branch, continuation: Continuation) -> None:
        branch.tokens.append(continuation.token)
        if continuation.logprobs is not None:
            branch.logprobs.append(continuation.logprobs)
        self._requests.result.grown.append(branch)
        end = continuation.end
        if branch.constraint is not None:
            branch.constraint.accept(continuation.token)
            if branch.constraint.is_done:
                end = "stop"  # an end token would come next, and cost a step
        if end is not None:
            self._requests.finish_branch(branch, end)

    def _note(
        self, step: int, plan: StepPlan, out: StepOutput, counts: KVCounts, unfilled: int,
        seconds: float,
    ) -> None:  # fmt: skip
        """Keep the record of a step; `counts` and `unfilled` slots are the cache's while all rows
        are stored and nothing has ended."""
        assert plan.batch is not None
        by_class: dict[str, int] = {}
        for name, ns in zip(self._op_names, out.op_ns, strict=False):
            by_class[name] = by_class.get(name, 0) + int(ns)
        record = StepRecord(
            step=step,
            num_requests=len(plan.requests),
            computed_tokens=len(plan.batch.tokens),
            kv_read_tokens=sum(begin for begin, _ in plan.spans.values()),
            output_rows=len(plan.batch.output_rows),
            seconds=seconds,
            forward_seconds=out.seconds,
            num_waiting=len(self._requests.waiting),
            num_preempted=plan.num_preempted,
            kv_blocks_used=counts.blocks_used,
            kv_blocks_kept=counts.blocks_cached,
            kv_blocks_total=counts.blocks_total,
            kv_slots_unfilled=unfilled,
            kv_blocks_copied=sum(each.kind == "copy" for each in plan.transfers),
            op_ns=tuple(by_class.items()),
        )
        self.records.append(record)
        self._requests.counters.step(record)
