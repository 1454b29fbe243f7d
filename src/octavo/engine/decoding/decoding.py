"""Decoding and Decision: what a strategy of drawing is, and what it decides after a step.

A strategy is a value: deciding changes nothing, so that what raises in the middle of a step can be
decided again. `engine/update.py` applies decisions. Knows nothing of blocks, steps or text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from octavo.batch import FloatArray, Want
from octavo.engine.decoding.drawing import Edits
from octavo.request import Branch, FinishReason, Request, TokenLogprobs


class HeadOutput(NamedTuple):
    """Holds what the head gave after the token at `position` of a branch."""

    branch: Branch
    position: int
    samples: bool  # the branch goes on from here; else it is a row of the prompt that gives a value
    edits: Edits
    argmax: int
    log_sum_exp: float
    logits: FloatArray | None  # (vocab,) if the row wanted them
    top: Sequence[tuple[int, float]]  # (token, log-probability), best first, if it wanted those


class Continuation(NamedTuple):
    """A token that goes on from `parent`, as this answer (or beam) of the request, from 0."""

    parent: Branch
    answer: int
    token: int
    logprobs: TokenLogprobs | None = None
    end: FinishReason | None = None


@dataclass(slots=True)
class Decision:
    """How a request goes on after a step.

    The first continuation of a parent goes on in it, others fork from it; a branch that was drawn
    from and has none is dropped. `end`: the request is over.
    """

    request: Request
    decoding: Decoding  # to go on with
    continuations: Sequence[Continuation] = ()
    row_values: Sequence[Any] = ()
    end: FinishReason | None = None
    error: Exception | None = None  # why nothing could be decided: the request ends with it


class Decoding(Protocol):
    @property
    def width_option(self) -> str:
        """The option that says how many branches a request has, for what is said of them."""

    @property
    def num_candidates(self) -> int:
        """Return how many of the likeliest tokens each row has to give."""

    @property
    def goes_together(self) -> bool:
        """All branches draw in one step, or none does."""

    def num_slots(self, request: Request) -> int:
        """Return how many branches may run from now on."""

    def want(self, branch: Branch) -> tuple[Want, Edits] | None:
        """Return what the row that a branch is drawn from wants of the head; None: nothing is
        drawn."""

    def decide(self, request: Request, outputs: Sequence[HeadOutput]) -> Decision:
        """Decide how the request goes on, given the outputs of the branches that caught up."""

    def close(self, request: Request, reason: FinishReason) -> None:
        """Make its branches, which have ended, the answers that were asked for. May be called
        again."""
