"""RecordingRunner: a runner that keeps the whole row of logits of every output, whatever was asked
for, and the tokens that it comes after.

The engine above it sees what it asked for and nothing else. Counts what batches hold, since only
they say what ran.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from octavo.batch import Batch, FloatArray, StepOutput, Want
from octavo.config import EngineConfig
from octavo.engine.nouns import Branch
from octavo.engine.runner import Runner
from octavo.engine.step import StepPlan
from octavo.kernels import native
from octavo.kv_cache.cache import Transfer
from octavo.program.program import Program
from octavo.weights.model_weights import ModelWeights


class Tamper:
    """What stands between an engine and the kernels. This one changes nothing; those of the tests
    do damage that has to be found."""

    def config(self, config: EngineConfig) -> EngineConfig:
        return config

    def batch(self, runner: Runner, batch: Batch) -> Batch:
        return batch

    def transfers(self, transfers: Sequence[Transfer]) -> Sequence[Transfer]:
        return transfers


@dataclass(frozen=True, slots=True)
class Row:
    """One row: what the head gives after some tokens."""

    logits: FloatArray  # (vocab,)
    log_sum_exp: float

    def __eq__(self, other: object) -> bool:
        """Bit for bit: as numbers -0.0 would pass for 0.0."""
        if not isinstance(other, Row):
            return NotImplemented
        same = np.array_equal(self.logits.view(np.uint32), other.logits.view(np.uint32))
        return same and self.log_sum_exp == other.log_sum_exp


@dataclass(frozen=True, slots=True)
class RecordedRow:
    branch: Branch
    prefix: tuple[int, ...]  # the tokens that the row comes after
    row: Row


class RecordingRunner(Runner):
    def __init__(
        self,
        program: Program,
        weights: ModelWeights,
        config: EngineConfig,
        *,
        tamper: Tamper | None = None,
        pool: native.ThreadPool,
        context: int,
        kv_budget: int,
        max_rows: int,
    ) -> None:
        self._tamper = tamper or Tamper()
        super().__init__(
            program, weights, self._tamper.config(config),
            pool=pool, context=context, kv_budget=kv_budget, max_rows=max_rows,
        )  # fmt: skip
        self._rows: list[RecordedRow] = []
        self.num_chunks = 0  # spans that ended before their sequence did
        self.num_read_only = 0  # spans whose first row was in its page already

    def take_rows(self) -> list[RecordedRow]:
        """The rows of all outputs since the last call."""
        rows, self._rows = self._rows, []
        return rows

    def forward(self, plan: StepPlan) -> StepOutput:
        transfers = self._tamper.transfers(plan.transfers)
        if plan.batch is None:
            return super().forward(replace(plan, transfers=transfers))
        self._count(plan.batch)
        batch = self._tamper.batch(self, _with_logits(plan.batch))
        out = super().forward(replace(plan, transfers=transfers, batch=batch))
        own, added = _parts(plan.batch)
        outputs = len(plan.head_rows)
        scored = [*own, *range(outputs, outputs + len(added))]  # where each gave its logits
        rows = map(Row, out.logits, out.log_sum_exp[scored].tolist())
        whole = dict(zip([*own, *added], rows, strict=True))
        self._rows += (
            RecordedRow(
                head.branch,
                tuple(head.branch.tokens[: head.position + 1]),
                whole[i],
            )
            for i, head in enumerate(plan.head_rows)
        )
        return replace(
            out,
            argmax=out.argmax[:outputs],
            log_sum_exp=out.log_sum_exp[:outputs],
            top_ids=out.top_ids[:outputs],
            top_logits=out.top_logits[:outputs],
            logits=out.logits[: len(own)],
        )

    def _count(self, batch: Batch) -> None:
        lasts, firsts = batch.row_starts[1:] - 1, batch.row_starts[:-1]
        self.num_chunks += int(np.count_nonzero(~np.isin(lasts, batch.output_rows)))
        self.num_read_only += int(np.count_nonzero(batch.write_starts > batch.positions[firsts]))


def _parts(batch: Batch) -> tuple[list[int], list[int]]:
    """Outputs that asked for logits, and those that did not."""
    asked = batch.wants == Want.LOGITS
    return np.flatnonzero(asked).tolist(), np.flatnonzero(~asked).tolist()


def _with_logits(batch: Batch) -> Batch:
    """Rows whose output was asked for less come out twice, the second time whole."""
    _, added = _parts(batch)
    starts, masks = batch.edit_starts, batch.masks
    temperatures, uniforms = batch.temperatures, batch.uniforms
    if starts is not None:  # logits see no edits: none follow the last
        starts = np.concatenate([starts, np.full(len(added), starts[-1], np.int32)])
    if masks is not None:
        masks = np.concatenate([masks, masks[added]])
    if temperatures is not None and uniforms is not None:
        temperatures = np.concatenate([temperatures, temperatures[added]])
        uniforms = np.concatenate([uniforms, uniforms[added]])
    return replace(
        batch,
        output_rows=np.concatenate([batch.output_rows, batch.output_rows[added]]),
        wants=np.concatenate([batch.wants, np.full(len(added), Want.LOGITS, np.int32)]),
        masks=masks,
        edit_starts=starts,
        temperatures=temperatures,
        uniforms=uniforms,
    )
