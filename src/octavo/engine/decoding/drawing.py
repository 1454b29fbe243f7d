"""Drawing: a token from one row of logits, and what the row is asked for.

Randomness is counter-based: the draw of a token depends on (seed, sample index, position) and on
nothing else, so that batching, preemption and restarts cannot change it. Knows logits and params;
knows no text.
"""

from __future__ import annotations

import hashlib
import struct

import numpy as np
from numpy.typing import NDArray

from octavo.batch import EDIT, FloatArray, IntArray
from octavo.kernels import native
from octavo.request import Branch, TokenLogprobs

Edits = NDArray[np.void]
NO_EDITS: Edits = np.zeros(0, EDIT)


class Drawing:
    def __init__(self, isa: str, vocab_size: int) -> None:
        self._isa = isa
        self._scratch = np.empty(native.sample_scratch(vocab_size), np.uint64)

    def draw(self, branch: Branch, index: int, logits: FloatArray) -> int:
        """The next token of a branch as answer `index`, from its edited row of logits (vocab,)."""
        p = branch.request.sampling
        if p.greedy:
            return int(self._best(logits, 1)[0][0])
        u = uniform(branch.request.seed, index, branch.num_tokens)
        return native.sample(
            self._isa, logits, p.temperature, p.top_k, p.top_p, p.min_p, u, self._scratch
        )

    def logprobs(self, logits: FloatArray, lse: float, token: int, count: int) -> TokenLogprobs:
        """Log-probabilities of one token and the `count` likeliest, from one row of logits
        (vocab,)."""
        ids, values = self._best(logits, count)
        top = tuple((int(t), float(v) - lse) for t, v in zip(ids, values, strict=True))
        return TokenLogprobs(token, float(logits[token]) - lse, top)

    def edit(self, logits: FloatArray, edits: Edits) -> FloatArray:
        """The row with biases and penalties applied; the row itself if there are none."""
        if not len(edits):
            return logits
        edited = logits.copy()
        native.edit_tile(self._isa, edited, 0, None, edits.view(np.uint8).reshape(len(edits), -1))
        return edited

    def _best(self, logits: FloatArray, count: int) -> tuple[IntArray, FloatArray]:
        """The `count` likeliest tokens and their logits, ties to the lowest id."""
        ids, values = np.empty(count, np.int32), np.empty(count, np.float32)
        native.top_k_tile(self._isa, ids, values, logits, 0)
        return ids, values


def penalties(branch: Branch) -> Edits:
    """Repetition over prompt and answer; presence and frequency over the answer. Sorted by
    token."""
    p = branch.request.sampling
    answer = p.presence_penalty != 0 or p.frequency_penalty != 0
    if p.repetition_penalty == 1 and not answer:
        return NO_EDITS
    seen = branch.tokens if p.repetition_penalty != 1 else branch.completion_token_ids
    tokens = np.unique(np.asarray(seen, np.int32))
    edits = np.zeros(len(tokens), EDIT)
    edits["token"] = tokens
    edits["scale"] = p.repetition_penalty
    if answer:
        made, counts = np.unique(
            np.asarray(branch.completion_token_ids, np.int32), return_counts=True
        )
        at = np.searchsorted(tokens, made)
        edits["add"][at] = -(p.presence_penalty + p.frequency_penalty * counts)
    return edits


def uniform(seed: int, sample: int, position: int) -> float:
    """A number in [0, 1) with 53 bits, from a hash of the three counters."""
    digest = hashlib.blake2b(struct.pack("<QQQ", seed, sample, position), digest_size=8).digest()
    return float(int.from_bytes(digest, "little") >> 11) * 2.0**-53
