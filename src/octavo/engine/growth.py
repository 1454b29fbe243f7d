"""Growth: what the head gave a request becomes tokens: draws, forks, beams, and where they end.

Comes in: a request and its outputs of a step. Changes the request's branches, and forks and ends
them in the scheduler. Knows nothing of steps, records or other requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from octavo.engine.beam import BeamSearch, Hypothesis
from octavo.engine.head_rows import HeadOutput, check_finite
from octavo.engine.sampler import Draw, Sampler, answers
from octavo.engine.scheduler import Scheduler
from octavo.engine.step_plan import ScheduledBranch
from octavo.errors import UsageError, counted
from octavo.interrupts import is_interrupt
from octavo.kernels import native
from octavo.request import Branch, FinishReason, Request


class Growth:
    def __init__(self, sampler: Sampler, scheduler: Scheduler, eos_ids: frozenset[int]) -> None:
        self._sampler = sampler
        self._scheduler = scheduler
        self._eos_ids = eos_ids
        self._searches: dict[Request, BeamSearch] = {}

    def make_search(self, request: Request) -> BeamSearch | None:
        """None for a request without beams. Raises UsageError if the head cannot serve it."""
        params = request.params
        if params.beam_width is None:
            return None
        ends = frozenset(params.stop_token_ids)
        search = BeamSearch(
            params.beam_width,
            max_tokens=request.max_tokens,
            end_tokens=ends if params.ignore_eos else ends | self._eos_ids,
            length_penalty=params.length_penalty,
            early_stopping=params.early_stopping,
            num_outputs=params.n,
        )
        if search.num_candidates > native.MAX_TOP_K:
            fewer = " or give fewer stop_token_ids" if ends else ""
            raise UsageError(
                f"beam_width={params.beam_width} with "
                f"{counted(search.num_candidates - params.beam_width, 'end token')} needs the "
                f"{search.num_candidates} likeliest tokens, the head gives {native.MAX_TOP_K}: "
                f"lower beam_width{fewer}"
            )
        return search

    def open(self, request: Request, search: BeamSearch | None) -> None:
        if search is not None:
            self._searches[request] = search

    def close(self, request: Request, reason: FinishReason) -> None:
        """Its branches have ended, those that lived with `reason`; beams become the best
        hypotheses, and what had not begun is an empty answer. May be called again if an exception
        broke it off."""
        search = self._searches.get(request)
        if search is not None:
            search.end(request.branches[0].finish_reason or reason)
            request.branches = [_answer(request, h) for h in search.hypotheses()]
            del self._searches[request]
        elif len(request.branches) == 1:  # it ended before its answers parted
            ended = request.branches[0].finish_reason
            for index in range(1, request.params.n):
                empty = list(request.prompt_token_ids)
                request.branches.append(Branch(request, index, empty, finish_reason=ended))

    def retain(self, requests: Iterable[Request]) -> None:
        """Forget all others."""
        self._searches = {r: self._searches[r] for r in requests if r in self._searches}

    def num_candidates(self, requests: Iterable[Request]) -> int:
        """Likeliest tokens that the beams of a step want."""
        searches = (self._searches[r] for r in requests if r in self._searches)
        return max((s.num_candidates for s in searches), default=0)

    def is_done(self, request: Request) -> bool:
        search = self._searches.get(request)
        return all(s.finish_reason for s in request.branches) if search is None else search.done

    def grow(self, request: Request, outputs: Sequence[HeadOutput], grown: list[Branch]) -> bool:
        """Append what the step gave a request to its branches, and to `grown` those that got a
        token. False: the prompt goes on. An interrupt changes nothing, but for beams."""
        for output in outputs:
            check_finite(output)
            if not output.row.samples:
                self._note_prompt_logprobs(request, output)
        sampled = [o for o in outputs if o.row.samples]
        if not sampled:
            return False
        if request.needs_all_rows:  # a prompt of one token has none
            request.prompt_logprobs[:0] = [None]
        if request.params.max_tokens == 0:  # its rows were all that was wanted
            self._scheduler.finish_branch(request.branches[0], "length")
        elif request in self._searches:
            self._grow_beams(request, sampled)
        else:
            try:
                for output in sampled:
                    self._grow_answers(output, grown)
            except BaseException as error:
                if is_interrupt(error):
                    _take_back([o.row.item for o in sampled])
                raise
        return True

    def check_integrity(self, requests: Iterable[Request]) -> None:
        assert self._searches.keys() == {r for r in requests if r.params.beam_width}

    def _grow_answers(self, output: HeadOutput, grown: list[Branch]) -> None:
        """Draw the next token of a branch; where the answers of a request part, of all."""
        branch = output.row.item.branch
        if output.logits is None:
            draws = [Draw(index, output.argmax, None) for index in answers(branch)]
        else:
            draws = self._sampler.draw(branch, output.logits, output.log_sum_exp, output.row.edits)
        others = [self._scheduler.fork(branch, draw.index) for draw in draws[1:]]
        for each, draw in zip([branch, *others], draws, strict=True):
            each.tokens.append(draw.token)
            if draw.logprobs is not None:
                each.logprobs.append(draw.logprobs)
            grown.append(each)
            reason = self._end_reason(each)
            if reason is not None:
                self._scheduler.finish_branch(each, reason)

    def _grow_beams(self, request: Request, outputs: Sequence[HeadOutput]) -> None:
        """Let the beams of a request go on from the best of their continuations."""
        old = [o.row.item.branch for o in outputs]
        assert old == request.branches
        steps = self._searches[request].advance([o.top for o in outputs])
        if not steps:
            return
        request.beam_parents.append(tuple(parent for parent, _ in steps))
        new: list[Branch] = []
        for parent, _ in steps:
            branch = old[parent]
            new.append(self._scheduler.fork(branch, 0) if branch in new else branch)
        for branch in set(old) - set(new):
            self._scheduler.drop(branch)
        for branch, (_, token) in zip(new, steps, strict=True):
            branch.tokens.append(token)
        request.branches[:] = new  # in the order of the search's beams

    def _note_prompt_logprobs(self, request: Request, output: HeadOutput) -> None:
        """A row gives the log-probability of the token after its own; one that ran again gives
        nothing new."""
        if not request.prompt_logprobs:
            request.prompt_logprobs.append(None)  # nothing comes before the first
        position = output.row.position + 1
        if position < len(request.prompt_logprobs):
            return
        assert position == len(request.prompt_logprobs)
        assert output.logits is not None
        token = request.prompt_token_ids[position]
        count = request.params.prompt_logprobs or 0
        request.prompt_logprobs.append(
            self._sampler.logprobs(output.logits, output.log_sum_exp, token, count)
        )

    def _end_reason(self, branch: Branch) -> FinishReason | None:
        request, token = branch.request, branch.tokens[-1]
        eos = token in self._eos_ids and not request.params.ignore_eos
        if eos or token in request.params.stop_token_ids:
            return "stop"
        return "length" if branch.num_completion_tokens >= request.max_tokens else None


def _take_back(items: Iterable[ScheduledBranch]) -> None:
    """What was drawn from the last rows of these; the scheduler recovers from the rest."""
    for item in items:
        branch = item.branch
        del branch.tokens[item.end :]
        del branch.logprobs[branch.num_completion_tokens :]
        branch.finish_reason = None
        if not branch.num_completion_tokens:
            branch.request.branches[:] = [branch]  # the answers part once more


def _answer(request: Request, hypothesis: Hypothesis) -> Branch:
    return Branch(
        request,
        0,
        [*request.prompt_token_ids, *hypothesis.tokens],
        finish_reason=hypothesis.finish_reason,
        cumulative_logprob=hypothesis.logprob,
    )
