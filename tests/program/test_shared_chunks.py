"""Sequences that have chunks of their past in the same blocks attend to them together; no bit of a
row tells.

What a batch gives is compared with each of its sequences alone, where nothing is shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from octavo.batch import Asked, Want, make_batch
from octavo.engine.runner import Runner
from octavo.kernels import native
from octavo.program.ops import KVSpec
from octavo.weights.ggml_type import GGMLType
from tests.exactness.programs import Grouped, build, windowed
from tests.tiny import make_runner, random_model

BLOCK, CHUNK = 32, native.ATTENTION_CHUNK
PER_CHUNK = CHUNK // BLOCK
VOCAB = 40
SHAPES = {
    "all tokens": Grouped((KVSpec(2, 32, 64),), 2, VOCAB, queries=3),
    "two blocks of query heads": Grouped((KVSpec(1, 32, 32),), 1, VOCAB, queries=30, softcap=1.0),
    "slopes": Grouped(
        (KVSpec(2, 32, 32), windowed(300)), 2, VOCAB, queries=5, slopes="plain", sink_logits=True
    ),
    "rounded slopes": Grouped((KVSpec(1, 32, 64),), 1, VOCAB, queries=19, slopes="rounded"),
    "a window too": Grouped((KVSpec(1, 16, 32), windowed(300)), 2, VOCAB, varied=True),
    "layers that store nothing": Grouped((KVSpec(2, 32, 32), windowed(300)), 2, VOCAB, sharing=3),
}
PASTS = {  # of each sequence, chunk by chunk: those of one name at one place are the same blocks
    "one": ["abc"] * 7,
    "two pairs": ["abc", "abd", "xyz", "xyw"],
    "a comb": ["", "a", "ab", "abc", "abc"],
    "one middle": ["amz", "bmz", "cmy"],
    "nothing in common": ["abc", "def", "ghi"],
    "more rows than one walk takes": ["ab"] * 30,
}


class Pasts:
    """Pages that hold the past of several sequences and room for rows of each behind it."""

    def __init__(self, runner: Runner, pasts: Sequence[str]) -> None:
        self.runner, self.pasts = runner, pasts
        names = sorted({chunk for past in pasts for chunk in enumerate(past)})
        first = {chunk: i * PER_CHUNK for i, chunk in enumerate(names)}
        own = len(names) * PER_CHUNK
        self.tables = [
            [first[chunk] + i for chunk in enumerate(past) for i in range(PER_CHUNK)]
            + [own + 2 * seq, own + 2 * seq + 1]
            for seq, past in enumerate(pasts)
        ]
        rng = np.random.default_rng(3)
        self.tokens = [rng.integers(0, VOCAB, CHUNK * len(p) + 2 * BLOCK).tolist() for p in pasts]
        filled: set[int] = set()  # a block's content is the first's that has it
        for seq, (tokens, table) in enumerate(zip(self.tokens, self.tables, strict=True)):
            for begin in range(0, len(tokens), 64):
                blocks = set(table[begin // BLOCK : begin // BLOCK + 2])
                if not blocks <= filled:
                    self.run([seq], [begin], [64], [begin])
                    filled |= blocks

    def run(
        self,
        seqs: Sequence[int],
        first: Sequence[int],
        rows: Sequence[int],
        write_starts: Sequence[int],
    ) -> list[NDArray[np.float32]]:
        """Give the logits of each sequence's rows, (rows, vocab)."""
        spans = [(self.tokens[s][f : f + n], f) for s, f, n in zip(seqs, first, rows, strict=True)]
        tables = [[self.tables[s] for s in seqs]] * len(self.runner.groups)
        total = sum(rows)
        wants = [Asked(Want.LOGITS)] * total
        batch = make_batch(spans, tables, range(total), wants, write_starts=write_starts)
        return np.split(self.runner.run(batch).logits, np.cumsum(rows)[:-1])

    def check(self, behind: Sequence[int], rows: Sequence[int]) -> None:
        """Compare rows of all sequences, each of which begins `behind` its past."""
        # Rows before them read shared blocks only.
        ends = [CHUNK * len(past) for past in self.pasts]
        first = [max(0, end + b) for end, b in zip(ends, behind, strict=True)]
        together = self.run(range(len(ends)), first, rows, ends)
        for seq, got in enumerate(together):
            (alone,) = self.run([seq], [first[seq]], [rows[seq]], [ends[seq]])
            assert np.isfinite(alone).all()
            assert np.array_equal(got, alone), seq


@lru_cache
def pasts_of(shape: str, pasts: str, kv_dtype: str, threads: int) -> Pasts:
    pool = native.ThreadPool(threads)
    model = random_model(build(SHAPES[shape]), pool, type=GGMLType.Q4_1)
    runner = make_runner(model, pool, num_blocks=700, max_rows=300, kv_dtype=kv_dtype)
    return Pasts(runner, PASTS[pasts])


@pytest.mark.parametrize("kv_dtype", ["f32", "bf16", "int8", "int4"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pasts", PASTS)
def test_one_row_of_each(pasts: str, shape: str, kv_dtype: str) -> None:
    sequences = pasts_of(shape, pasts, kv_dtype, 2)
    count = len(sequences.pasts)
    sequences.check([0] * count, [1] * count)
    sequences.check([-1] * count, [1] * count)  # the last token of a chunk sees all of it
    sequences.check([i % 40 for i in range(count)], [1] * count)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_rows(data: st.DataObject) -> None:
    """Rows that are many, that begin before a chunk's end, or that see a part of one only."""
    shape, pasts = data.draw(st.sampled_from([*SHAPES])), data.draw(st.sampled_from([*PASTS]))
    sequences = pasts_of(shape, pasts, "bf16", data.draw(st.sampled_from([1, 2, 3])))
    count = len(sequences.pasts)
    sizes = st.lists(st.integers(1, 10), min_size=count, max_size=count)
    places = st.lists(st.integers(-20, 40), min_size=count, max_size=count)
    sequences.check(data.draw(places), data.draw(sizes))
