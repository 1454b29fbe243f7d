"""Rows before a sequence's write_starts store nothing and attend over the pages as they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from octavo.batch import Batch, Want, make_batch
from octavo.engine.runner import Runner
from octavo.kernels import native
from octavo.program.reference import ReferenceInterpreter
from octavo.weights.ggml_type import GGMLType
from tests.tiny import TINY, make_runner, tiny_model

POOL = native.ThreadPool(2)
RNG = np.random.default_rng(11)
TOKENS = [[int(t) for t in RNG.integers(0, TINY.vocab_size, 70)] for _ in range(6)]
TABLES = [[7, 2, 9], [4, 11, 0], [5, 1, 3]]


def whole(sequences: Sequence[Sequence[int]]) -> Batch:
    """Every sequence from position 0, every row stored."""
    rows = sum(map(len, sequences))
    spans = [(tokens, 0) for tokens in sequences]
    return make_batch(spans, [TABLES], range(rows), [Want.LOGITS] * rows)


def some_write(write_starts: Sequence[int] | None = (0, 41, 90)) -> Batch:
    """Three sequences at 0, 30 and 69: the first stores all, the second from 41, the third none."""
    spans = [(TOKENS[3][:40], 0), (TOKENS[4][30:60], 30), (TOKENS[5][69:], 69)]
    wants = [Want.LOGITS] * 71
    return make_batch(spans, [TABLES], range(71), wants, write_starts=write_starts)


def slots_of(runner: Runner, table: Sequence[int], positions: Sequence[int]) -> NDArray[np.bool_]:
    """Which bytes of the pages hold K and V of these positions."""
    layout = runner.layouts[0]
    blank = zero_pages(runner)
    value = np.full((len(positions), layout.kv_heads, layout.k_dim), 0x3F3F3F3F, np.uint32)
    floats = value.view(np.float32)  # no byte of it is zero, nor of its bf16
    for layer in range(layout.layers):
        native.write_kv(
            runner.isa, blank, layout, np.array(table, np.int32), np.array(positions, np.int32),
            layer, floats, floats,
        )  # fmt: skip
    return blank != 0


def zero_pages(runner: Runner) -> NDArray[np.uint8]:
    size = runner.pages[0].size
    raw = np.zeros(size + 64, np.uint8)
    begin = -raw.ctypes.data % 64
    return raw[begin : begin + size]


@pytest.mark.parametrize("fuse", [True, False])
def test_native_equals_the_reference_over_pages_of_other_tokens(fuse: bool) -> None:
    model = tiny_model(TINY, POOL, type=GGMLType.F32)
    runner = make_runner(model, POOL, num_blocks=12, max_rows=256, kv_dtype="f32", fuse=fuse)
    reference = ReferenceInterpreter(model.program, model.exact, num_blocks=12)
    for interpreter in (runner.run, reference.run):
        interpreter(whole(TOKENS[:3]))
    got, want = runner.run(some_write()).logits, reference.run(some_write()).logits
    # As in test_native: float32 in both, in other orders.
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())
    # The pages held K and V of other tokens: rows that store theirs give another answer.
    runner.run(whole(TOKENS[:3]))
    stored = runner.run(some_write(None)).logits
    assert np.array_equal(stored[:40], got[:40])
    assert all(np.abs(stored[i] - got[i]).max() > 0.1 for i in (40, 50, 69, 70))


@pytest.mark.parametrize("kv", ["bf16", "f32"])
@pytest.mark.parametrize("fuse", [True, False])
def test_only_bytes_of_stored_positions_change(kv: str, fuse: bool) -> None:
    runner = make_runner(
        tiny_model(TINY, POOL), POOL, num_blocks=12, max_rows=256, kv_dtype=kv, fuse=fuse
    )
    runner.run(whole(TOKENS[:3]))
    before = runner.pages[0].copy()
    runner.run(some_write())
    changed = runner.pages[0] != before
    stored = [slots_of(runner, TABLES[0], range(40)), slots_of(runner, TABLES[1], range(41, 60))]
    assert not changed[~(stored[0] | stored[1])].any()
    for table, positions in ((TABLES[0], range(40)), (TABLES[1], range(41, 60))):
        for position in positions:
            assert changed[slots_of(runner, table, [position])].any(), position


@pytest.mark.parametrize("kv", ["bf16", "f32"])
@pytest.mark.parametrize("write_start", [70, 71, 2**31 - 1])
def test_a_poisoned_page_stays_as_it_is(kv: str, write_start: int) -> None:
    """Every byte is marked: nothing of a batch that stores nothing may reach the pages."""
    runner = make_runner(tiny_model(TINY, POOL), POOL, num_blocks=12, max_rows=256, kv_dtype=kv)
    runner.pages[0][:] = 0xFF
    spans = [(TOKENS[0], 0), (TOKENS[1][69:], 69)]
    batch = make_batch(
        spans, [TABLES[:2]], [69, 70], [Want.ARGMAX] * 2, write_starts=[write_start] * 2
    )
    runner.run(batch)
    assert (runner.pages[0] == 0xFF).all()


def test_every_row_is_stored_unless_said() -> None:
    batch = make_batch([([1, 2], 5), ([3], 0)], [[[0], [1]]], [1], [Want.ARGMAX])
    assert batch.write_starts.tolist() == [5, 0]
    assert batch.write_starts.dtype == np.int32
