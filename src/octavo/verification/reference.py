"""Reference: the logits after a token prefix, computed in the plainest way there is.

A request alone, its tokens in one forward on fresh pages, in a table that nobody shares, without
scheduler or cache. Knows prefixes and rows; knows nothing of what they are compared with.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from octavo.batch import Asked, Want, make_batch
from octavo.engine.runner import Runner
from octavo.kv_cache.cache import Transfer
from octavo.verification.recorder import RecordedRow, Row

Prefix = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """The first row whose logits were not those of the reference."""

    request: int  # of the scenario, from 0
    position: int  # of the row's token in its sequence
    values: int  # logits that differ
    largest: float | None  # absolute; None where one is not finite


class Reference:
    def __init__(self, runner: Runner) -> None:
        """`runner` belongs to the reference alone; a step of it holds the longest prefix."""
        self._runner = runner
        self._rows: dict[Prefix, Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, prefix: Prefix) -> Row | None:
        """The row after the last token of a prefix that was learnt."""
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

    def _compute(self, tokens: Prefix, lengths: list[int]) -> list[Row]:
        """The rows after these many tokens."""
        blocks = [range(count) for count in self._runner.num_blocks]
        self._runner.transfer(
            Transfer("release", group, block)
            for group, every in enumerate(blocks)
            for block in every
        )
        batch = make_batch(
            [(tokens, 0)],
            [[every] for every in blocks],
            [n - 1 for n in lengths],
            [Asked(Want.LOGITS)] * len(lengths),
        )
        out = self._runner.run(batch)
        return [Row(*each) for each in zip(out.logits, out.log_sum_exp.tolist(), strict=True)]


class Comparison:
    """Rows of a scenario beside the reference's, bit for bit."""

    def __init__(self, reference: Reference) -> None:
        self.num_rows = 0
        self._reference = reference
        self._pending: list[tuple[int, int, RecordedRow]] = []  # their row is not learnt
        self._first: tuple[int, Difference] | None = None  # with the number of its row

    def add(self, request: int, recorded: RecordedRow) -> None:
        """Compare a row now, or in `finish` if the reference has yet to compute it."""
        wanted = self._reference.find(recorded.prefix)
        if wanted is None:
            self._pending.append((self.num_rows, request, recorded))
        else:
            self._compare(self.num_rows, request, recorded, wanted)
        self.num_rows += 1

    def finish(self) -> Difference | None:
        """The first difference of all rows, if there is one."""
        self._reference.learn(recorded.prefix for _, _, recorded in self._pending)
        for number, request, recorded in self._pending:
            wanted = self._reference.find(recorded.prefix)
            assert wanted is not None
            self._compare(number, request, recorded, wanted)
        self._pending.clear()
        return None if self._first is None else self._first[1]

    def _compare(self, number: int, request: int, recorded: RecordedRow, wanted: Row) -> None:
        if self._first is not None and self._first[0] < number:
            return
        got, expected = recorded.row.logits, wanted.logits
        # As integers: == on floats would let -0.0 pass for 0.0.
        changed = int(np.count_nonzero(got.view(np.uint32) != expected.view(np.uint32)))
        if changed:
            largest = float(np.max(np.abs(got - expected)))
            difference = Difference(
                request,
                len(recorded.prefix) - 1,
                changed,
                largest if np.isfinite(largest) else None,
            )
            self._first = number, difference
