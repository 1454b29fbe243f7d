"""What the reference interpreter says of one sequence, and how near other float32 arithmetic is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from octavo.batch import Asked, Batch, Want, make_batch
from octavo.program.program import Program
from octavo.program.reference import ReferenceInterpreter

Floats = NDArray[np.float32]


def tokens_of(vocab: int) -> list[int]:
    return [int(t) for t in np.random.default_rng(7).integers(0, vocab, 70)]


def batch_of(
    tokens: Sequence[int], rows: Sequence[int], wants: Sequence[Want | Asked], *, groups: int = 1,
    top_k: int = 0,
) -> Batch:  # fmt: skip
    """Tokens from position 0 on, in blocks 0 to 63, and what is wanted of some rows."""
    asked = [each if isinstance(each, Asked) else Asked(each) for each in wants]
    return make_batch([(tokens, 0)], [[list(range(64))]] * groups, rows, asked, top_k=top_k)


def reference_logits(
    program: Program, exact: Mapping[str, Floats], tokens: Sequence[int], **options: Any
) -> Floats:
    """(tokens, vocab)."""
    reference = ReferenceInterpreter(program, exact, num_blocks=64, **options)
    wants = [Want.LOGITS] * len(tokens)
    batch = batch_of(tokens, range(len(tokens)), wants, groups=len(reference.kv))
    return reference.run(batch).logits


def check_near(got: Floats, want: Floats, share: float = 1e-4) -> None:
    """Float32 in other orders: a few hundred roundings of 2^-24 of values of order |want|."""
    np.testing.assert_allclose(got, want, rtol=0, atol=share * np.abs(want).max())
