"""BeamSearch: which continuations live on, which are finished, and when to stop.

Comes in: for each live beam its likeliest next tokens. Goes out: (parent, token) of the new live
beams, and at the end the best hypotheses. Knows nothing of requests, blocks, text or arrays.

The rules are those of Hugging Face's generate for decoder-only models:
1. A step ranks the continuations of all beams by their log-probability.
2. Of the first `width`, those that end in an end token, or by their length, are hypotheses.
3. The first `width` that do not end live on; what ends past the first `width` is dropped.
4. score = logprob / n ** length_penalty, with n the generated tokens, the end token included and
   the prompt not. The `width` best are kept. (vLLM counts the prompt and not the end token.)
5. The search stops with `width` hypotheses if `early_stopping`; else when moreover the likeliest
   live beam, scored at the length it has now, is no better than the worst of them. For a positive
   length penalty that is a heuristic: a longer one might still have won.
Ties go to the lower parent, then to the token given first; between hypotheses to the older.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import count, islice

from octavo.request import FinishReason


@dataclass(frozen=True, slots=True)
class Beam:
    """A continuation that lives: its generated tokens and their log-probability."""

    tokens: tuple[int, ...]
    logprob: float


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished continuation; its tokens hold the end token, if one ended it."""

    tokens: tuple[int, ...]
    logprob: float
    score: float
    finish_reason: FinishReason


class BeamSearch:
    def __init__(
        self, width: int, *, max_tokens: int, end_tokens: frozenset[int], length_penalty: float,
        early_stopping: bool, num_outputs: int,
    ) -> None:  # fmt: skip
        assert 1 <= num_outputs <= width
        assert max_tokens >= 1
        self.beams: list[Beam] = [Beam((), 0.0)]  # live, best first
        self._width = width
        self._max_tokens = max_tokens
        self._end_tokens = end_tokens
        self._length_penalty = length_penalty
        self._early_stopping = early_stopping
        self._num_outputs = num_outputs
        self._finished: list[Hypothesis] = []  # best first, at most `width`

    def copy(self) -> BeamSearch:
        """Return a copy to go on with, while this one stays as it is."""
        twin = copy(self)
        twin.beams, twin._finished = list(self.beams), list(self._finished)
        return twin

    @property
    def num_candidates(self) -> int:
        """Tokens wanted for each beam: were every end token among them, `width` others are left."""
        return self._width + len(self._end_tokens)

    @property
    def done(self) -> bool:
        return not self.beams

    def advance(self, top: Sequence[Sequence[tuple[int, float]]]) -> list[tuple[int, int]]:
        """`top[i]`: (token, log-probability) of the `num_candidates` likeliest for beam i, best
        first, or the whole vocabulary. For each new beam, best first, the index of its parent among
        the old ones and its token; none when the search is over."""
        assert self.beams
        assert len(top) == len(self.beams)
        streams = [_candidates(*each) for each in zip(count(), self.beams, top, strict=False)]
        enough = self._width + len(streams) * len(self._end_tokens)
        beams: list[Beam] = []
        steps: list[tuple[int, int]] = []
        for place, (cost, parent, _, token) in enumerate(islice(heapq.merge(*streams), enough)):
            beam = Beam((*self.beams[parent].tokens, token), -cost)
            reason = self._reason(beam)
            if reason is None and len(steps) < self._width:
                beams.append(beam)
                steps.append((parent, token))
            elif reason is not None and place < self._width:
                self._finish(beam, reason)
        self.beams = beams
        if self._is_over():
            self.beams = []
            return []
        return steps

    def end(self, reason: FinishReason) -> None:
        """Stop now, at a deadline or a cancel: live beams become hypotheses."""
        while self.beams:
            self._finish(self.beams[0], reason)
            del self.beams[0]

    def hypotheses(self) -> list[Hypothesis]:
        """The `num_outputs` best, best first, of a search that is done; fewer only where the
        vocabulary has fewer."""
        assert self.done
        return self._finished[: self._num_outputs]

    def _reason(self, beam: Beam) -> FinishReason | None:
        if beam.tokens[-1] in self._end_tokens:
            return "stop"
        return "length" if len(beam.tokens) == self._max_tokens else None

    def _score(self, beam: Beam) -> float:
        scale: float = max(1, len(beam.tokens)) ** self._length_penalty
        return beam.logprob / scale

    def _finish(self, beam: Beam, reason: FinishReason) -> None:
        self._finished.append(Hypothesis(beam.tokens, beam.logprob, self._score(beam), reason))
        self._finished.sort(key=lambda each: -each.score)  # stable: the older first
        del self._finished[self._width :]

    def _is_over(self) -> bool:
        if not self.beams:
            return True
        if len(self._finished) < self._width:
            return False
        return self._early_stopping or self._score(self.beams[0]) <= self._finished[-1].score


def _candidates(
    parent: int, beam: Beam, given: Sequence[tuple[int, float]]
) -> Iterator[tuple[float, int, int, int]]:
    """(-logprob, parent, rank, token): ascending is best first, ties as promised."""
    for rank, (token, logprob) in enumerate(given):
        yield -(beam.logprob + logprob), parent, rank, token
