"""Beams: a search for the likeliest answers, step by step, in place of draws."""

from __future__ import annotations

from collections.abc import Sequence

from octavo.batch import Asked, Want
from octavo.engine.decoding.beam_search import BeamSearch
from octavo.engine.nouns import Branch, Request
from octavo.engine.step import Continuation, Decision, HeadRow
from octavo.errors import UsageError, counted
from octavo.kernels import native
from octavo.request import FinishReason


class Beams:
    width_option = "beam_width"
    goes_together = True

    def __init__(
        self,
        search: BeamSearch,
        num_candidates: int,
        parents: tuple[tuple[int, ...], ...] = (),
    ) -> None:
        """`parents`: of the beams after each step so far, their places before it."""
        self.num_candidates = num_candidates
        self._parents = parents
        self._search = search  # each step has a copy of it: only `close` changes it

    def num_slots(self, request: Request) -> int:
        """A beam that ended gives its slot to the beams that go on."""
        return request.width

    def want(self, branch: Branch) -> Asked | None:
        return Asked(Want.TOP_K)

    def decide(self, request: Request, rows: Sequence[HeadRow]) -> Decision:
        """The best continuations of all beams; a branch's index is its rank."""
        parents = sorted(rows, key=lambda each: each.branch.index)
        assert [each.branch for each in parents] == request.branches
        search = self._search.copy()
        steps = search.advance([each.top for each in parents])
        going_on = [
            Continuation(parents[parent].branch, rank, token)
            for rank, (parent, token) in enumerate(steps)
        ]
        parents_of_all = self._parents
        if steps:
            parents_of_all += (tuple(parent for parent, _ in steps),)
        return Decision(
            request,
            Beams(search, self.num_candidates, parents_of_all),
            going_on,
            end="stop" if search.done else None,
        )

    def close(self, request: Request, reason: FinishReason) -> None:
        """The best hypotheses are the answers; beams that lived end with `reason`."""
        self._search.end(reason)
        request.branch_parents = self._parents
        request.branches = [
            Branch(
                request,
                rank,
                [*request.prompt_token_ids, *found.tokens],
                finish_reason=found.finish_reason,
                cumulative_logprob=found.logprob,
            )
            for rank, found in enumerate(self._search.hypotheses())
        ]


def make_beams(request: Request, eos_ids: frozenset[int], vocab_size: int) -> Beams:
    """Raises UsageError if the head cannot serve so many candidates."""
    params = request.params
    assert params.beam_width is not None
    ends = frozenset(params.stop_token_ids)
    search = BeamSearch(
        params.beam_width,
        max_tokens=request.max_tokens,
        end_tokens=ends if params.ignore_eos else ends | eos_ids,
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
    return Beams(search, min(search.num_candidates, vocab_size))
