"""Draws: greedy decoding and sampling, of one answer or several that part after the prompt."""

from __future__ import annotations

from collections.abc import Sequence

from octavo.batch import Want
from octavo.engine.decoding.decoding import Continuation, Decision, HeadOutput
from octavo.engine.decoding.drawing import Drawing, Edits, penalties
from octavo.request import Branch, FinishReason, Request, TokenLogprobs


class Draws:
    width_option = "n"
    num_candidates = 0
    goes_together = False

    def __init__(self, drawing: Drawing, eos_ids: frozenset[int]) -> None:
        self._drawing = drawing
        self._eos_ids = eos_ids

    def num_slots(self, request: Request) -> int:
        """An answer that ended gives its slot to others."""
        return request.width if len(request.branches) == 1 else len(request.live_branches)

    def want(self, branch: Branch) -> tuple[Want, Edits] | None:
        request = branch.request
        if not request.draws:
            return None
        plain = request.sampling.greedy and request.params.logprobs is None
        return Want.ARGMAX if plain else Want.LOGITS, penalties(branch)

    def decide(self, request: Request, outputs: Sequence[HeadOutput]) -> Decision:
        if not request.draws:
            return Decision(request, self, end="length")
        drawn = [each for output in outputs for each in self._draw(output)]
        return Decision(request, self, drawn)

    def close(self, request: Request, reason: FinishReason) -> None:
        """Answers that had not parted yet are empty ones."""
        present = {branch.index for branch in request.branches}
        for index in set(range(request.params.n)) - present:
            prompt = list(request.prompt_token_ids)
            ended = request.branches[0].finish_reason or reason
            request.branches.append(Branch(request, index, prompt, finish_reason=ended))

    def _draw(self, output: HeadOutput) -> list[Continuation]:
        """The next token of a branch; where the answers of a request part, of all."""
        branch = output.branch
        request = branch.request
        parts = len(request.branches) == 1 and branch.num_completion_tokens == 0
        answers = range(request.params.n) if parts else (branch.index,)
        drawn = []
        edited = None
        for index in answers:
            token, logprobs = output.argmax, None
            if output.logits is not None:
                if edited is None:
                    edited = self._drawing.edit(output.logits, output.edits)
                token = self._drawing.draw(branch, index, edited)
                logprobs = self._logprobs(output, token)
            end = self._end(branch, token)
            drawn.append(Continuation(branch, index, token, logprobs, end))
        return drawn

    def _logprobs(self, output: HeadOutput, token: int) -> TokenLogprobs | None:
        wanted = output.branch.request.params.logprobs
        if wanted is None:
            return None
        assert output.logits is not None
        return self._drawing.logprobs(output.logits, output.log_sum_exp, token, wanted)

    def _end(self, branch: Branch, token: int) -> FinishReason | None:
        request = branch.request
        eos = token in self._eos_ids and not request.params.ignore_eos
        if eos or token in request.params.stop_token_ids:
            return "stop"
        return "length" if branch.num_completion_tokens + 1 >= request.max_tokens else None
