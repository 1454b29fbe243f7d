"""Cases: the requests that scenarios run. Random tokens, the same every time.

Lengths follow from the block size and the context, so that every edge of a block, a partly filled
one and (in contexts above 341) a second chunk of attention are met.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from octavo.engine.nouns import Request
from octavo.sampling_params import SamplingParams
from octavo.verification.trial import Case

NEW = 12  # tokens of each answer
GREEDY = SamplingParams(max_tokens=NEW, temperature=0.0, ignore_eos=True)
DRAWN = SamplingParams(max_tokens=NEW, temperature=0.8, seed=5, ignore_eos=True)
EDITED = SamplingParams(
    max_tokens=NEW, temperature=1.0, seed=6, ignore_eos=True,
    repetition_penalty=1.1, frequency_penalty=0.5, top_p=0.9, logit_bias={0: -2.5, 1: 1.5},
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cases:
    """Makes the cases for one block size, context and vocabulary."""

    block_size: int
    context: int
    vocab_size: int
    window: int = 0  # tokens that some layers keep at most; 0: all keep all

    def mixed(self) -> list[Case]:
        """The cases that most scenarios run: greedy, drawn, and drawn with edits in turn."""
        size, context = self.block_size, self.context
        lengths = (1, 2, size - 1, size, size + 1, context // 3, context * 3 // 4)
        kinds = (GREEDY, DRAWN, EDITED)
        return [Case(self.tokens(i, n), kinds[i % 3]) for i, n in enumerate(lengths)]

    def longest(self) -> Case:
        return self.mixed()[-1]

    def growing(self) -> list[Case]:
        """Four cases whose answers run into another block after a few tokens."""
        length = self.growing_blocks * self.block_size - 3
        return [Case(self.tokens(80 + i, length), GREEDY) for i in range(4)]

    @property
    def growing_blocks(self) -> int:
        """The number of blocks that the prompt of each of `growing` fills."""
        most = self.context // 4
        if self.window:  # beyond it a sequence gives blocks back while it takes others
            most = min(most, self.window)
        return max(1, most // self.block_size)

    def fork(self, seed: int, n: int) -> Case:
        params = SamplingParams(max_tokens=NEW, temperature=0.9, seed=seed, n=n, ignore_eos=True)
        return Case(self._into_a_block(seed), params)

    def beams(self, seed: int, width: int) -> Case:
        params = SamplingParams(max_tokens=NEW, beam_width=width, n=width, ignore_eos=True)
        return Case(self._into_a_block(seed), params)

    def tokens(self, seed: int, count: int) -> tuple[int, ...]:
        rng = np.random.default_rng(seed)
        return tuple(rng.integers(0, self.vocab_size, count).tolist())

    def _into_a_block(self, seed: int) -> tuple[int, ...]:
        """A prompt that leaves its last block half filled."""
        return self.tokens(seed, self.block_size + self.block_size // 2)


def num_rows(cases: list[Case]) -> int:
    """The rows of these cases when each is computed once: the last token drawn never is."""
    return sum(len(case.prompt) + NEW - 1 for case in cases)


def history(request: Request) -> tuple[int, ...]:
    return (*request.prompt_token_ids, *request.branches[0].completion_token_ids)
