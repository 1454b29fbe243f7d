"""Draws: greedy decoding and sampling, of one answer or several that part after the prompt; and
what is read off one row of logits.

Randomness is counter-based: the draw of a token depends on (seed, answer, position) and on nothing
else, so that batching, preemption and restarts cannot change it. Knows logits and params; knows no
blocks and no text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from octavo.batch import EDIT, Asked, Edits, FloatArray, IntArray, Want
from octavo.constraint import Words
from octavo.engine.masks import Masks
from octavo.engine.nouns import Branch, Request
from octavo.engine.step import Continuation, Decision, HeadRow
from octavo.kernels import native
from octavo.request import FinishReason, TokenLogprobs


class Draws:
    """One for all requests that are drawn: it keeps nothing of any."""

    width_option = "n"
    num_candidates = 0
    goes_together = False

    def __init__(
        self,
        isa: str,
        vocab_size: int,
        eos_ids: frozenset[int],
        *,
        mask_words: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`mask_words`: of the masks that the head takes, where they have more than the tokens."""
        self.vocab_size, self.eos_ids = vocab_size, eos_ids
        self.masks = Masks(mask_words or -(-vocab_size // 32), clock)
        self._isa = isa
        self._scratch = np.empty(native.sample_scratch(vocab_size), np.uint64)

    def num_slots(self, request: Request) -> int:
        """An answer that ended gives its slot to others."""
        return request.width if len(request.branches) == 1 else len(request.live_branches)

    def want(self, branch: Branch) -> Asked | None:
        request = branch.request
        if not request.draws:
            return None
        edits = edits_of(branch)
        is_greedy = request.sampling.greedy
        if not request.head_may_draw or (not is_greedy and _parts(branch)):
            return Asked(Want.LOGITS, edits)
        try:
            mask = self.masks.of(branch)
        except Exception:  # it is raised again where the token is drawn: no step is at fault
            return Asked(Want.LOGITS, edits)
        if is_greedy:
            return Asked(Want.ARGMAX, edits, mask)
        return Asked(Want.DRAW, edits, mask, request.sampling.temperature)

    def decide(self, request: Request, rows: Sequence[HeadRow]) -> Decision:
        if not request.draws:
            return Decision(request, self, end="length")
        if len(rows) == 1:
            return Decision(request, self, self._next(rows[0]))
        return Decision(request, self, [each for row in rows for each in self._next(row)])

    def close(self, request: Request, reason: FinishReason) -> None:
        """Answers that had not parted yet are empty ones."""
        present = {branch.index for branch in request.branches}
        for index in set(range(request.params.n)) - present:
            prompt = list(request.prompt_token_ids)
            ended = request.branches[0].finish_reason or reason
            request.branches.append(Branch(request, index, prompt, finish_reason=ended))

    def draw(
        self, branch: Branch, index: int, logits: FloatArray, likeliest: int | None = None
    ) -> int:
        """The next token of a branch as answer `index`, from its edited row of logits (vocab,), and
        where it is known the row's likeliest token."""
        p = branch.request.sampling
        if p.greedy:
            return int(self._best(logits, 1)[0][0])
        u = native.uniform(branch.request.seed, index, branch.num_tokens)
        return native.sample(
            self._isa, logits, p.temperature, p.top_k, p.top_p, p.min_p, u, self._scratch, likeliest
        )

    def logprobs(self, logits: FloatArray, lse: float, token: int, count: int) -> TokenLogprobs:
        """Log-probabilities of one token and the `count` likeliest, from one row of logits
        (vocab,)."""
        ids, values = self._best(logits, count)
        top = tuple((int(t), float(v) - lse) for t, v in zip(ids, values, strict=True))
        return TokenLogprobs(token, float(logits[token]) - lse, top)

    def edit(self, logits: FloatArray, edits: Edits, mask: Words | None = None) -> FloatArray:
        """The row with biases and penalties applied, and what is not allowed out of reach; the row
        itself if there is none of these."""
        if mask is None and not len(edits):
            return logits
        edited = logits.copy()
        records = edits.view(np.uint8).reshape(len(edits), EDIT.itemsize)
        native.edit_tile(self._isa, edited, 0, mask, records)
        return edited

    def row_value(self, row: HeadRow) -> Any:
        """Return what a row of a prompt gives a request that wants every row: its logits, or what
        they were made of; of the token that follows it the log-probability alone (a score), or with
        the likeliest ones."""
        request = row.branch.request
        if request.every_row == "hidden":
            return row.hidden
        assert row.logits is not None
        if request.every_row == "logits":
            return row.logits
        logits = row.logits[: self.vocab_size]
        token = request.prompt_token_ids[row.position + 1]
        if request.every_row == "scores":
            return logits[token] - row.log_sum_exp
        count = request.params.prompt_logprobs or 0
        return self.logprobs(logits, row.log_sum_exp, token, count)

    def _next(self, row: HeadRow) -> Sequence[Continuation]:
        """The next token of a branch; where the answers of a request part, of all."""
        branch = row.branch
        request = branch.request
        parts = request.params.n > 1 and _parts(branch)
        if row.logits is None and not parts:  # the head drew
            token, logprobs = row.token, None
            if request.params.logprobs is not None:
                logprobs = TokenLogprobs(token, row.logit - row.log_sum_exp, ())
            return (Continuation(branch, branch.index, token, logprobs, self._end(branch, token)),)
        answers = range(request.params.n) if parts else (branch.index,)
        if row.logits is None:
            token = row.token
            end = self._end(branch, token)
            return [Continuation(branch, index, token, None, end) for index in answers]
        mask = self.masks.of(branch)
        edited = self.edit(row.logits[: self.vocab_size], row.asked.edits, mask)
        likeliest = row.token if mask is None else None  # the head knows the edits, and no mask
        drawn = []
        for index in answers:
            token = self.draw(branch, index, edited, likeliest)
            logprobs, end = self._logprobs(row, token), self._end(branch, token)
            drawn.append(Continuation(branch, index, token, logprobs, end))
        return drawn

    def _logprobs(self, row: HeadRow, token: int) -> TokenLogprobs | None:
        wanted = row.branch.request.params.logprobs
        if wanted is None:
            return None
        assert row.logits is not None
        return self.logprobs(row.logits[: self.vocab_size], row.log_sum_exp, token, wanted)

    def _end(self, branch: Branch, token: int) -> FinishReason | None:
        request = branch.request
        eos = token in self.eos_ids and not request.params.ignore_eos
        if eos or token in request.params.stop_token_ids:
            return "stop"
        num_drawn = len(branch.tokens) + 1 - request.num_prompt_tokens
        return "length" if num_drawn >= request.max_tokens else None

    def _best(self, logits: FloatArray, count: int) -> tuple[IntArray, FloatArray]:
        """The `count` likeliest tokens and their logits, ties to the lowest id."""
        ids, values = np.empty(count, np.int32), np.empty(count, np.float32)
        native.top_k_tile(self._isa, ids, values, logits, 0)
        return ids, values


def _parts(branch: Branch) -> bool:
    """Several answers of the request begin with the next token."""
    request = branch.request
    return request.params.n > 1 and len(request.branches) == 1 and not branch.num_completion_tokens


def edits_of(branch: Branch) -> Edits:
    """Repetition over prompt and answer, presence and frequency over the answer, and biases: one
    edit of each token, sorted by token."""
    p, biases = branch.request.sampling, branch.request.biases
    if not branch.request.is_penalised:
        return biases
    seen = branch.tokens if p.repetition_penalty != 1 else branch.completion_token_ids
    penalised = np.unique(np.asarray(seen, np.int32))
    tokens = np.union1d(penalised, biases["token"]) if len(biases) else penalised
    edits = np.zeros(len(tokens), EDIT)
    edits["token"] = tokens
    edits["scale"] = 1
    edits["scale"][np.searchsorted(tokens, penalised)] = p.repetition_penalty
    if p.weighs_answer:
        made, counts = np.unique(
            np.asarray(branch.completion_token_ids, np.int32), return_counts=True
        )
        at = np.searchsorted(tokens, made)
        edits["add"][at] = -(p.presence_penalty + p.frequency_penalty * counts)
    edits["add"][np.searchsorted(tokens, biases["token"])] += biases["add"]
    return edits
