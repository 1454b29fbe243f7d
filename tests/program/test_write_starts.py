"""Rows before a sequence's write_starts store nothing and attend over the pages as they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from octavo.batch import Asked, Batch, Want, make_batch
from octavo.engine.runner import Runner
from octavo.kernels import native
from octavo.program.reference import ReferenceInterpreter
from octavo.weights.ggml_type import GGMLType
from tests.kernels.guard import guarded
from tests.program.one_sequence import check_near
from tests.tiny import TINY, make_runner, tiny_model

POOL = native.ThreadPool(2)
RNG = np.random.default_rng(11)
TOKENS = [[int(t) for t in RNG.integers(0, TINY.vocab_size, 70)] for _ in range(6)]
TABLES = [[7, 2, 9], [4, 11, 0], [5, 1, 3]]


def whole() -> Batch:
    """The first three from position 0, every row stored."""
    spans = [(tokens, 0) for tokens in TOKENS[:3]]
    return make_batch(spans, [TABLES], range(210), [Asked(Want.LOGITS)] * 210)


def some_write(write_starts: Sequence[int] | None = (0, 41, 90)) -> Batch:
    """Three sequences at 0, 30 and 69: the first stores all, the second from 41, the third none."""
    spans = [(TOKENS[3][:40], 0), (TOKENS[4][30:60], 30), (TOKENS[5][69:], 69)]
    wants = [Asked(Want.LOGITS)] * 71
    return make_batch(spans, [TABLES], range(71), wants, write_starts=write_starts)


def slots_of(runner: Runner, table: Sequence[int], positions: Sequence[int]) -> NDArray[np.bool_]:
    """Which bytes of the pages hold K and V of these positions."""
    layout = runner.layouts[0]
    blank = guarded(np.zeros_like(runner.pages[0]))
    value = np.full((len(positions), layout.kv_heads, layout.k_dim), 0x3F3F3F3F, np.uint32)
    floats = value.view(np.float32)  # no byte of it is zero, nor of its bf16
    where = np.array(table, np.int32), np.array(positions, np.int32)
    for layer in range(layout.layers):
        native.write_kv(runner.isa, blank, layout, *where, layer, floats, floats)
    return np.asarray(blank != 0)


@pytest.mark.parametrize("fuse", [True, False])
def test_native_equals_the_reference_over_pages_of_other_tokens(fuse: bool) -> None:
    model = tiny_model(TINY, POOL, type=GGMLType.F32)
    runner = make_runner(model, POOL, num_blocks=12, max_rows=256, kv_dtype="f32", fuse=fuse)
    reference = ReferenceInterpreter(model.program, model.exact, num_blocks=12)
    for interpreter in (runner.run, reference.run):
        interpreter(whole())
    got = runner.run(some_write()).logits
    check_near(got, reference.run(some_write()).logits)
    # The pages held K and V of other tokens: rows that store theirs give another answer.
    runner.run(whole())
    stored = runner.run(some_write(None)).logits
    assert np.array_equal(stored[:40], got[:40])
    assert all(np.abs(stored[i] - got[i]).max() > 0.1 for i in (40, 50, 69, 70))


@pytest.mark.parametrize("kv", ["bf16", "f32", "int8"])
@pytest.mark.parametrize("fuse", [True, False])
def test_only_bytes_of_stored_positions_change(kv: str, fuse: bool) -> None:
    model = tiny_model(TINY, POOL)
    runner = make_runner(model, POOL, num_blocks=12, max_rows=256, kv_dtype=kv, fuse=fuse)
    runner.run(whole())
    before = runner.pages[0].copy()
    runner.run(some_write())
    changed = runner.pages[0] != before
    for table, positions in ((TABLES[0], range(40)), (TABLES[1], range(41, 60))):
        for position in positions:
            slots = slots_of(runner, table, [position])
            assert changed[slots].any(), position
            changed[slots] = False
    assert not changed.any()


@pytest.mark.parametrize("kv", ["bf16", "f32", "int8"])
@pytest.mark.parametrize("write_start", [70, 71, 2**31 - 1])
def test_a_poisoned_page_stays_as_it_is(kv: str, write_start: int) -> None:
    """Every byte is marked: nothing of a batch that stores nothing may reach the pages."""
    runner = make_runner(tiny_model(TINY, POOL), POOL, num_blocks=12, max_rows=256, kv_dtype=kv)
    runner.pages[0][:] = 0xFF
    spans, wants = [(TOKENS[0], 0), (TOKENS[1][69:], 69)], [Asked(Want.ARGMAX)] * 2
    batch = make_batch(spans, [TABLES[:2]], [69, 70], wants, write_starts=[write_start] * 2)
    runner.run(batch)
    assert (runner.pages[0] == 0xFF).all()


def test_every_row_is_stored_unless_said() -> None:
    batch = make_batch([([1, 2], 5), ([3], 0)], [[[0], [1]]], [1], [Asked(Want.ARGMAX)])
    assert batch.write_starts.tolist() == [5, 0]
    assert batch.write_starts.dtype == np.int32
