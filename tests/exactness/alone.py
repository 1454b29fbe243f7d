"""Alone: what a request gives by itself, without a cache, a batch or a scheduler.

The row of logits after some tokens comes from one forward over all of them, in pages that hold
nothing; the answer from drawing on such rows one after the other. Rows are remembered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from octavo.batch import Want
from octavo.engine.beam import BeamSearch, Hypothesis
from octavo.engine.runner import Runner, make_batch
from octavo.engine.sampler import Sampler
from octavo.request import Branch, FinishReason, Request, TokenLogprobs

NAN = 0x7FC1  # in bf16; two of them are one in float32
_REMEMBERED = 10_000  # rows


@dataclass(frozen=True, slots=True)
class Row:
    """What the head gives after some tokens."""

    logits: NDArray[np.float32]  # (vocab,)
    log_sum_exp: float

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Row)
        same = np.array_equal(self.logits, other.logits)
        return same and self.log_sum_exp == other.log_sum_exp


class Alone:
    def __init__(self, runner: Runner, eos_ids: frozenset[int]) -> None:
        self.runner = runner
        self.eos_ids = eos_ids
        self.sampler = Sampler(runner.isa, runner.vocab_size)
        self.rows: dict[tuple[int, ...], Row] = {}
        self.num_computed = 0

    def row(self, tokens: Sequence[int]) -> Row:
        """After the last of the tokens."""
        key = tuple(tokens)
        if key not in self.rows:
            self.compute(key)
        return self.rows[key]

    def compute(self, tokens: tuple[int, ...]) -> None:
        """Run them whole, in fresh pages; remember the row after each."""
        if len(self.rows) > _REMEMBERED:
            self.rows.clear()
        for pages in self.runner.pages:
            pages.view(np.uint16)[:] = NAN
        count = len(tokens)
        table = list(range(self.runner.num_blocks))
        out = self.runner.forward(
            make_batch([(tokens, 0)], [table], 1, range(count), [Want.LOGITS] * count)
        )
        self.num_computed += count
        for i in range(count):
            self.rows[tokens[: i + 1]] = Row(out.logits[i], float(out.log_sum_exp[i]))

    def answer(self, request: Request, index: int, most: int) -> Branch:
        """Answer `index` of a request to its end, or to `most` tokens."""
        alone = self._copy(request)
        branch = alone.branches[index]
        while branch.num_completion_tokens < most and branch.finish_reason is None:
            row = self.row(branch.tokens)
            _, edits = self.sampler.want(branch)
            (draw,) = self.sampler.draw(branch, row.logits, row.log_sum_exp, edits)
            branch.tokens.append(draw.token)
            if draw.logprobs is not None:
                branch.logprobs.append(draw.logprobs)
            branch.finish_reason = self._reason(branch)
        return branch

    def beams(
        self, request: Request, steps: int, reason: FinishReason | None
    ) -> tuple[list[Hypothesis], list[tuple[int, ...]]]:
        """The best hypotheses, and the parents of each step's beams. With a reason the search was
        ended by it after so many steps."""
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
        parents: list[tuple[int, ...]] = []
        while not search.done and (reason is None or len(parents) < steps):
            rows = [self.row([*prompt, *beam.tokens]) for beam in search.beams]
            new = search.advance([best(row, search.num_candidates) for row in rows])
            parents += [tuple(parent for parent, _ in new)] if new else []
        if reason is not None:
            search.end(reason)
        return search.hypotheses(), parents

    def prompt_logprobs(self, request: Request) -> list[TokenLogprobs | None]:
        prompt, count = request.prompt_token_ids, request.params.prompt_logprobs or 0
        rows = [self.row(prompt[:i]) for i in range(1, len(prompt))]
        return [None] + [
            self.sampler.logprobs(row.logits, row.log_sum_exp, token, count)
            for row, token in zip(rows, prompt[1:], strict=True)
        ]

    def _copy(self, request: Request) -> Request:
        """The same request, not begun, its answers apart already."""
        alone = Request(
            0, request.params, request.options, request.prompt_token_ids,
            request.seed, request.sampling, request.max_tokens,
        )  # fmt: skip
        prompt = request.prompt_token_ids
        alone.branches = [Branch(alone, i, list(prompt)) for i in range(request.params.n)]
        return alone

    def _reason(self, branch: Branch) -> FinishReason | None:
        params, token = branch.request.params, branch.tokens[-1]
        if token in params.stop_token_ids or (token in self.eos_ids and not params.ignore_eos):
            return "stop"
        at_most = branch.request.max_tokens
        return "length" if branch.num_completion_tokens == at_most else None


def best(row: Row, count: int) -> list[tuple[int, float]]:
    """(token, log-probability) of the likeliest, ties to the lowest id."""
    logits = row.logits.tolist()
    ids = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    return [(token, logits[token] - row.log_sum_exp) for token in ids[:count]]
