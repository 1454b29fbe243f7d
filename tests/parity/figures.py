"""How far one model's logits are from another's, row by row. Knows numbers only, no models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from octavo.batch import FloatArray

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figures:
    """Arrays by row; the last token of a window has no following token, so no loss."""

    cosine: Doubles  # (rows,) of the logits as they are
    centred: Doubles  # (rows,) of the logits less their mean: an offset common to all hides nothing
    error: Doubles  # (rows,) largest difference, in standard deviations of the expected row
    same_best: NDArray[np.bool_]  # (rows,)
    loss: Doubles  # (rows - windows,) -log p of the following token
    expected_loss: Doubles  # (rows - windows,)

    def rows(self, begin: int, end: int) -> Figures:
        """Return the figures of one window: the rows from `begin` to `end`, and their losses."""
        return Figures(*(getattr(self, f.name)[begin:end] for f in fields(self)))

    @property
    def perplexity(self) -> float:
        return float(np.exp(self.loss.mean()))

    @property
    def perplexity_change(self) -> float:
        """Ours over theirs, less 1."""
        return float(np.exp(self.loss.mean() - self.expected_loss.mean()) - 1)

    @property
    def loss_error(self) -> float:
        """Root of the mean square of what log p of the following token is off by."""
        return float(np.sqrt(np.mean((self.loss - self.expected_loss) ** 2)))


def compare(got: FloatArray, want: FloatArray, tokens: list[int]) -> Figures:
    """`got` and `want`: (len(tokens), vocab), the logits after each of `tokens`."""
    spread = want.std(axis=1, dtype=np.float64)
    following = np.asarray(tokens[1:])
    return Figures(
        cosine=_cosine(got, want),
        centred=_cosine(_centre(got), _centre(want)),
        error=np.abs(got - want).max(axis=1) / spread,
        same_best=got.argmax(axis=1) == want.argmax(axis=1),
        loss=_loss(got[:-1], following),
        expected_loss=_loss(want[:-1], following),
    )


def join(parts: Iterable[Figures]) -> Figures:
    """The figures of several windows as one."""
    listed = list(parts)
    columns = ([getattr(p, f.name) for p in listed] for f in fields(Figures))
    return Figures(*(np.concatenate(column) for column in columns))


def _cosine(a: FloatArray, b: FloatArray) -> Doubles:
    dot, aa, bb = (
        np.einsum("rv,rv->r", x, y, dtype=np.float64) for x, y in ((a, b), (a, a), (b, b))
    )
    cosine: Doubles = dot / np.sqrt(aa * bb)
    return cosine


def _centre(logits: FloatArray) -> FloatArray:
    centred: FloatArray = logits - logits.mean(axis=1, keepdims=True, dtype=np.float64)
    return centred


def _loss(logits: FloatArray, following: NDArray[np.int64]) -> Doubles:
    exact = logits.astype(np.float64)
    peak = exact.max(axis=1)
    total = peak + np.log(np.exp(exact - peak[:, None]).sum(axis=1))
    loss: Doubles = total - exact[np.arange(len(following)), following]
    return loss
