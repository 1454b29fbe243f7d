"""Reference: the logits after a token prefix, computed in the plainest way there is.

A request alone, its tokens in one forward on fresh pages, in a table that nobody shares, without
scheduler or cache. Knows prefixes and rows; knows nothing of what they are compared with.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from octavo.batch import FloatArray, Want
from octavo.engine.runner import Runner, make_batch

Prefix = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """Where logits first were not those of the reference."""

    request: int  # of the scenario, from 0
    position: int  # of the row's token in its sequence
    values: int  # logits that differ
    largest: float | None  # absolute; None where one is not finite


class Reference:
    def __init__(self, runner: Runner) -> None:
        """`runner` belongs to the reference alone; a step of it holds the longest prefix."""
        self._runner = runner
        self._rows: dict[Prefix, FloatArray] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, prefix: Prefix) -> FloatArray | None:
        """(vocab,) after the last token of a prefix that was learnt."""
        return self._rows.get(prefix)

    def learn(self, prefixes: Iterable[Prefix]) -> None:
        """Compute the rows of these prefixes: the longest whole, those that begin it with it."""
        missing = {p for p in prefixes if p not in self._rows}
        for whole in sorted(missing, key=lambda p: (-len(p), p)):
            if whole in self._rows:
                continue
            lengths = [n for n in range(1, len(whole) + 1) if whole[:n] in missing]
            for n, row in zip(lengths, self._compute(whole, lengths), strict=True):
                self._rows[whole[:n]] = row

    def _compute(self, tokens: Prefix, lengths: list[int]) -> FloatArray:
        """(len(lengths), vocab): the rows after these many tokens."""
        blocks = range(self._runner.num_blocks)
        self._runner.release_blocks(blocks)
        outputs = [n - 1 for n in lengths]
        wants = [Want.LOGITS] * len(outputs)
        groups = len(self._runner.layouts)
        batch = make_batch([(tokens, 0)], [blocks], groups, outputs, wants)
        return self._runner.forward(batch).logits


class Comparison:
    """Rows of a scenario beside the reference's, bit for bit."""

    def __init__(self, reference: Reference) -> None:
        self.num_rows = 0
        self._reference = reference
        self._pending: list[tuple[int, int, Prefix, FloatArray]] = []  # their row is not learnt
        self._first: tuple[int, Difference] | None = None  # with the number of its row

    def add(self, request: int, prefix: Prefix, logits: FloatArray) -> None:
        """Compare a row (vocab,) now, or in `finish` if the reference has yet to compute it."""
        wanted = self._reference.find(prefix)
        if wanted is None:
            self._pending.append((self.num_rows, request, prefix, logits))
        else:
            self._compare(self.num_rows, request, prefix, logits, wanted)
        self.num_rows += 1

    def finish(self) -> Difference | None:
        """The first difference of all rows, if there is one."""
        self._reference.learn(prefix for _, _, prefix, _ in self._pending)
        for number, request, prefix, logits in self._pending:
            wanted = self._reference.find(prefix)
            assert wanted is not None
            self._compare(number, request, prefix, logits, wanted)
        self._pending.clear()
        return None if self._first is None else self._first[1]

    def _compare(
        self, number: int, request: int, prefix: Prefix, logits: FloatArray, wanted: FloatArray
    ) -> None:
        if self._first is not None and self._first[0] < number:
            return
        # As integers: == on floats would let -0.0 pass for 0.0.
        changed = int(np.count_nonzero(logits.view(np.uint32) != wanted.view(np.uint32)))
        if changed:
            largest = float(np.max(np.abs(logits - wanted)))
            difference = Difference(
                request, len(prefix) - 1, changed, largest if np.isfinite(largest) else None
            )
            self._first = number, difference
