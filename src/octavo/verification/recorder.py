"""RecordingRunner: a runner that keeps the whole logits of every output, whatever was asked for.

The engine above it sees what it asked for and nothing else. Counts what batches hold, since only
they say what ran.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from octavo.batch import Batch, FloatArray, StepOutput, Want
from octavo.config import EngineConfig
from octavo.engine.runner import Runner
from octavo.kernels import native
from octavo.program.ops import Program
from octavo.weights.gguf_model import ModelWeights


class Tamper:
    """What stands between an engine and the kernels. This one changes nothing; those of the tests
    do damage that has to be found."""

    def config(self, config: EngineConfig) -> EngineConfig:
        return config

    def batch(self, runner: Runner, batch: Batch) -> Batch:
        return batch

    def copies(self, pairs: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
        return pairs


class RecordingRunner(Runner):
    def __init__(
        self,
        program: Program,
        weights: ModelWeights,
        config: EngineConfig,
        *,
        tamper: Tamper,
        pool: native.ThreadPool,
        context: int,
        num_blocks: int,
        max_rows: int,
    ) -> None:
        super().__init__(
            program, weights, tamper.config(config),
            pool=pool, context=context, num_blocks=num_blocks, max_rows=max_rows,
        )  # fmt: skip
        self.logits: Sequence[FloatArray] = ()  # (vocab,) for each output of the last forward
        self.num_chunks = 0  # spans that ended before their sequence did
        self.num_read_only = 0  # spans whose first row was in its page already
        self._tamper = tamper

    def forward(self, batch: Batch) -> StepOutput:
        self._count(batch)
        out = super().forward(self._tamper.batch(self, _with_logits(batch)))
        own, added = _parts(batch)
        outputs = len(batch.output_rows)
        rows = dict(zip([*own, *added], out.logits, strict=True))
        self.logits = [rows[i] for i in range(outputs)]
        return replace(
            out,
            argmax=out.argmax[:outputs],
            log_sum_exp=out.log_sum_exp[:outputs],
            top_ids=out.top_ids[:outputs],
            top_logits=out.top_logits[:outputs],
            logits=out.logits[: len(own)],
        )

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        super().copy_blocks(self._tamper.copies(pairs))

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
    if starts is not None:  # logits see no edits: none follow the last
        starts = np.concatenate([starts, np.full(len(added), starts[-1], np.int32)])
    if masks is not None:
        masks = np.concatenate([masks, masks[added]])
    return replace(
        batch,
        output_rows=np.concatenate([batch.output_rows, batch.output_rows[added]]),
        wants=np.concatenate([batch.wants, np.full(len(added), Want.LOGITS, np.int32)]),
        masks=masks,
        edit_starts=starts,
    )
