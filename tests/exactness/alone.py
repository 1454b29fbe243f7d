"""Alone: what a request gives by itself, without a cache, a batch or a scheduler.

The row of logits after some tokens is the reference's; the answer comes from drawing on such rows
one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from octavo.batch import Asked, Want, make_batch
from octavo.constraint import Words
from octavo.engine.decoding.beam_search import BeamSearch
from octavo.engine.decoding.draws import Draws, edits_of
from octavo.engine.nouns import Branch, Request
from octavo.engine.runner import Runner
from octavo.request import FinishReason
from octavo.verification.recorder import RecordedRow, Row
from octavo.verification.reference import Prefix, Reference

Answer = tuple[Prefix, float | None, FinishReason | None]
_REMEMBERED = 10_000  # rows


class Alone:
    def __init__(self, runner: Runner, eos_ids: frozenset[int]) -> None:
        self.eos_ids = eos_ids
        self._runner = runner
        self._draws = Draws(runner.isa, runner.vocab_size, eos_ids)
        self._reference = Reference(runner)

    def learn(self, prefixes: Iterable[Prefix]) -> None:
        """Compute the rows of these: those that begin another one together with it."""
        if len(self._reference) > _REMEMBERED:
            self._reference = Reference(self._runner)
        self._reference.learn(prefixes)

    def row(self, tokens: Sequence[int]) -> Row:
        """After the last of the tokens."""
        prefix = tuple(tokens)
        found = self._reference.find(prefix)
        if found is None:
            self.learn([prefix])
            found = self._reference.find(prefix)
        assert found is not None
        return found

    def row_of_tokens(self, tokens: Sequence[int]) -> Row:
        """Without the logits of what fills up the head's table."""
        row = self.row(tokens)
        return Row(row.logits[: self._runner.vocab_size], row.log_sum_exp)

    def answer(self, request: Request, index: int, most: int) -> Branch:
        """Answer `index` of a request to its end, or to `most` tokens."""
        params = request.params
        branch = self._begin(request, index)
        while branch.num_completion_tokens < most and branch.finish_reason is None:
            row = self.row_of_tokens(branch.tokens)
            edited = self._draws.edit(row.logits, edits_of(branch), self._mask(branch))
            token = self._draws.draw(branch, index, edited)
            if params.logprobs is not None:
                logprobs = self._draws.logprobs(row.logits, row.log_sum_exp, token, params.logprobs)
                branch.logprobs.append(logprobs)
            branch.tokens.append(token)
            if branch.constraint is not None:
                branch.constraint.accept(token)
            branch.finish_reason = self._reason(branch)
        return branch

    def beams(self, request: Request, steps: int, reason: FinishReason | None) -> list[Answer]:
        """The best answers of a search; with a reason, of one ended by it after so many steps."""
        params, prompt = request.params, request.prompt_token_ids
        ends = frozenset(params.stop_token_ids)
        search = BeamSearch(
            params.beam_width or 0,
            max_tokens=request.max_tokens,
            end_tokens=ends if params.ignore_eos else ends | self.eos_ids,
            length_penalty=params.length_penalty,
            early_stopping=params.early_stopping,
            num_outputs=params.n,
        )
        while not search.done and (reason is None or len(search.beams[0].tokens) < steps):
            rows = [self.row_of_tokens([*prompt, *beam.tokens]) for beam in search.beams]
            search.advance([best(row, search.num_candidates) for row in rows])
        if reason is not None:
            search.end(reason)
        return [(prompt + h.tokens, h.logprob, h.finish_reason) for h in search.hypotheses()]

    def row_values(self, request: Request) -> list[Any]:
        """What each row of the prompt gives: logits as bytes, for == on bits."""
        prompt = request.prompt_token_ids
        self.learn(prompt[: i + 1] for i in range(request.num_rows_wanted))
        prefixes = [prompt[: i + 1] for i in range(request.num_rows_wanted)]
        if request.every_row == "logits":
            return [self.row(prefix).logits.tobytes() for prefix in prefixes]
        rows = [self.row_of_tokens(prefix) for prefix in prefixes]
        if request.every_row == "scores":
            return [r.logits[t] - r.log_sum_exp for r, t in zip(rows, prompt[1:], strict=False)]
        count = request.params.prompt_logprobs or 0
        return [
            self._draws.logprobs(row.logits, row.log_sum_exp, token, count)
            for row, token in zip(rows, prompt[1:], strict=False)
        ]

    def embedding(self, request: Request) -> bytes:
        """As bytes, for == on bits."""
        prompt = request.prompt_token_ids
        batch = make_batch(
            [(prompt, 0)],
            [[range(count)] for count in self._runner.num_blocks],
            range(len(prompt)),
            [Asked(Want.HIDDEN)] * len(prompt),
        )
        rows = self._runner.run(batch).hidden
        if request.options.pooling == "last":
            rows = rows[-1:]
        total = reduce(np.add, rows)
        exact = [float(x) for x in total]
        length = math.sqrt(math.fsum(x * x for x in exact)) or 1.0
        return np.array([x / length for x in exact], np.float32).tobytes()

    def _begin(self, request: Request, index: int) -> Branch:
        """Answer `index` of the same request, not begun."""
        alone = Request(
            0, request.params, request.options, request.prompt_token_ids,
            request.seed, request.sampling, request.max_tokens,
        )  # fmt: skip
        branch = Branch(alone, index, list(request.prompt_token_ids))
        if alone.options.constraint is not None:
            branch.constraint = alone.options.constraint.start()
        return branch

    def _mask(self, branch: Branch) -> Words | None:
        if branch.constraint is None:
            return None
        words = np.empty(-(-self._runner.vocab_size // 32), np.uint32)
        branch.constraint.fill_mask(words)
        return words

    def _reason(self, branch: Branch) -> FinishReason | None:
        params, token = branch.request.params, branch.tokens[-1]
        if branch.constraint is not None and branch.constraint.is_done:
            return "stop"
        if token in params.stop_token_ids or (token in self.eos_ids and not params.ignore_eos):
            return "stop"
        at_most = branch.request.max_tokens
        return "length" if branch.num_completion_tokens == at_most else None


def compare(found: Sequence[RecordedRow], alone: Alone) -> int:
    """Every row that came out of the head is that of its branch computed whole. The number
    of rows."""
    alone.learn(recorded.prefix for recorded in found)
    for recorded in found:
        same = recorded.row == alone.row(recorded.prefix)
        assert same, f"other logits after {len(recorded.prefix)} tokens"
    return len(found)


def beams(request: Request) -> list[Answer]:
    """The answers of a search that has ended, best first."""
    return [(tuple(b.tokens), b.cumulative_logprob, b.finish_reason) for b in request.branches]


def best(row: Row, count: int) -> list[tuple[int, float]]:
    """(token, log-probability) of the likeliest, ties to the lowest id."""
    logits = row.logits.tolist()
    ids = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    return [(token, logits[token] - row.log_sum_exp) for token in ids[:count]]
