"""Sampler: what each sampling request asks of the head, and one token from what the head gives.

Randomness is counter-based: the draw of a token depends on (seed, sample index, position) and on
nothing else, so that batching, preemption and restarts cannot change it. Knows logits and params;
knows no text.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from octavo.batch import EDIT, FloatArray, IntArray, StepOutput, Want
from octavo.errors import ModelError
from octavo.kernels import native
from octavo.request import Request, TokenLogprobs

Edits = NDArray[np.void]


@dataclass(frozen=True, slots=True)
class HeadWants:
    """One entry for each sampling request: what its output row asks for, and the edits of its
    logits."""

    wants: tuple[Want, ...]
    edits: tuple[Edits, ...]

    def ragged_edits(self) -> tuple[IntArray, Edits] | tuple[None, None]:
        """(starts, edits) for the head; none if nothing is edited."""
        if not any(len(e) for e in self.edits):
            return None, None
        starts = np.cumsum([0, *(len(e) for e in self.edits)], dtype=np.int32)
        return starts, np.concatenate(self.edits)


class Sampler:
    def __init__(self, isa: str, vocab_size: int) -> None:
        self._isa = isa
        self._scratch = np.empty(native.sample_scratch(vocab_size), np.uint64)

    def wants(self, requests: Sequence[Request]) -> HeadWants:
        return HeadWants(
            tuple(Want.ARGMAX if _is_plain_greedy(r) else Want.LOGITS for r in requests),
            tuple(penalties(r) for r in requests),
        )

    def sample(self, requests: Sequence[Request], wants: HeadWants, out: StepOutput) -> list[int]:
        """One token for each request; appends to its `logprobs` if it asked for them."""
        tokens = []
        rows = iter(out.logits)
        for i, request in enumerate(requests):
            if math.isnan(out.log_sum_exp[i]):
                raise ModelError("the model's logits are not finite: check the file, or another")
            if wants.wants[i] is Want.ARGMAX:
                tokens.append(int(out.argmax[i]))
                continue
            logits = next(rows)
            edited = self._edit(logits, wants.edits[i])
            tokens.append(self._draw(request, edited))
            if request.params.logprobs is not None:
                lse = float(out.log_sum_exp[i])
                request.logprobs.append(self._logprobs(request, logits, lse, tokens[-1]))
        return tokens

    def _draw(self, request: Request, logits: FloatArray) -> int:
        if request.temperature == 0:
            return int(self._best(logits, 1)[0][0])
        p = request.params
        u = uniform(request.seed, 0, request.num_tokens)
        return native.sample(
            self._isa, logits, request.temperature, p.top_k, p.top_p, p.min_p, u, self._scratch
        )

    def _best(self, logits: FloatArray, count: int) -> tuple[IntArray, FloatArray]:
        """The `count` likeliest tokens and their logits, ties to the lowest id."""
        ids, values = np.empty(count, np.int32), np.empty(count, np.float32)
        native.top_k_tile(self._isa, ids, values, logits, 0)
        return ids, values

    def _edit(self, logits: FloatArray, edits: Edits) -> FloatArray:
        if not len(edits):
            return logits
        edited = logits.copy()
        native.edit_tile(self._isa, edited, 0, None, edits.view(np.uint8).reshape(len(edits), -1))
        return edited

    def _logprobs(
        self, request: Request, logits: FloatArray, lse: float, token: int
    ) -> TokenLogprobs:
        count = request.params.logprobs or 0
        ids, values = self._best(logits, count)
        top = tuple((int(t), float(v) - lse) for t, v in zip(ids, values, strict=True))
        return TokenLogprobs(token, float(logits[token]) - lse, top)


def penalties(request: Request) -> Edits:
    """Repetition over prompt and answer; presence and frequency over the answer. Sorted by
    token."""
    p = request.params
    answer = p.presence_penalty != 0 or p.frequency_penalty != 0
    if p.repetition_penalty == 1 and not answer:
        return np.zeros(0, EDIT)
    seen = request.tokens if p.repetition_penalty != 1 else request.completion_token_ids
    tokens = np.unique(np.asarray(seen, np.int32))
    edits = np.zeros(len(tokens), EDIT)
    edits["token"] = tokens
    edits["scale"] = p.repetition_penalty
    if answer:
        made, counts = np.unique(
            np.asarray(request.completion_token_ids, np.int32), return_counts=True
        )
        at = np.searchsorted(tokens, made)
        edits["add"][at] = -(p.presence_penalty + p.frequency_penalty * counts)
    return edits


def uniform(seed: int, sample: int, position: int) -> float:
    """A number in [0, 1) with 53 bits, from a hash of the three counters."""
    digest = hashlib.blake2b(struct.pack("<QQQ", seed, sample, position), digest_size=8).digest()
    return float(int.from_bytes(digest, "little") >> 11) * 2.0**-53


def _is_plain_greedy(request: Request) -> bool:
    return request.temperature == 0 and request.params.logprobs is None
