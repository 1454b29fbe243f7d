"""The native interpreter with sinks: the first block of a sequence in a layer group of its own."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from octavo.batch import Asked, Batch, Want, make_batch
from octavo.engine.runner import Runner
from octavo.kernels import native
from octavo.program.ops import KVSpec
from octavo.program.reference import ReferenceInterpreter
from octavo.program.rounding import (
    round_int4_keys,
    round_int4_rows,
    round_int8_keys,
)
from octavo.weights.ggml_type import GGMLType
from tests.exactness.programs import Grouped, build, windowed
from tests.program.parts import make_parts
from tests.tiny import make_runner, random_model

POOL = native.ThreadPool(2)
VOCAB = 300
TOKENS = np.random.default_rng(7).integers(0, VOCAB, 900).tolist()
# Of all tokens, of a window, and of all tokens again: sinks are groups 3 and 4.
GROUPS = KVSpec(2, 32, 64), windowed(20), KVSpec(1, 48, 32)
MODEL = random_model(build(Grouped(GROUPS, 4, VOCAB)), POOL, type=GGMLType.F32)
SINKS = (3, 4)
ROUNDED: dict[str, Any] = {
    "round_k": round_int4_keys, "round_v": round_int4_rows, "round_q": round_int8_keys,
}  # fmt: skip


def runner_of(**options: Any) -> Runner:
    return make_runner(MODEL, POOL, num_blocks=100, **{"kv_dtype": "int4", **options})


def batch_of(first: list[int], count: list[int], tables: list[list[list[int]]]) -> Batch:
    """`count` rows of each sequence from `first` on."""
    texts = [TOKENS[300 * seq : 300 * seq + 300] for seq in range(len(first))]
    spans = [(t[f : f + c], f) for t, f, c in zip(texts, first, count, strict=True)]
    rows = sum(count)
    return make_batch(spans, tables, range(rows), [Asked(Want.LOGITS)] * rows)


def two_sequences(first: list[int], count: list[int]) -> Batch:
    """In each group in other blocks; of sinks, in the first block only."""
    others = [[[9, 4, 6], [3, 8, 1]], [[7, 2, 5], [3, 8, 1]], [[0, 4, 2], [10, 8, 3]]]
    return batch_of(first, count, [*others, [[2], [5]], [[1], [0]]])


@pytest.mark.parametrize("fuse", [True, False])
def test_sequences_equal_the_reference_and_no_token_is_written_twice(fuse: bool) -> None:
    runner = runner_of(fuse=fuse)
    assert runner.op_names.count("QKV") == (4 if fuse else 0)
    reference = ReferenceInterpreter(MODEL.program, MODEL.exact, num_blocks=64, sinks=32, **ROUNDED)
    for first, count in (([0, 0], [60, 25]), ([60, 25], [9, 40])):
        batch = two_sequences(first, count)
        got, want = runner.run(batch).logits, reference.run(batch).logits
        # A nibble that rounds to the next one is a fifteenth of its group's range: 0.997 without
        # sinks, too.
        cosine = (got * want).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(want, axis=1)
        assert cosine.min() > 0.98
    written = [
        np.flatnonzero(pages.reshape(blocks, -1).any(axis=1)).tolist()
        for pages, blocks in zip(runner.pages, runner.num_blocks, strict=True)
    ]
    # Where the sinks are int4 pages have no block; the window has all.
    assert written == [[1, 4, 6, 8], [1, 2, 3, 5, 7, 8], [2, 3, 4, 8], [2, 5], [0, 1]]


def test_what_the_table_says_of_the_first_block_is_not_looked_at() -> None:
    runner = runner_of()
    want = runner.run(two_sequences([0, 0], [60, 25])).logits
    other = two_sequences([0, 0], [60, 25])
    for group in (0, 2):
        other.block_tables[group, :, 0] = -1
    for group in SINKS:
        other.block_tables[group, :, 1:] = -1
    assert np.array_equal(runner_of().run(other).logits, want)


@pytest.mark.parametrize("group", SINKS)
def test_sinks_that_are_missing_are_refused(group: int) -> None:
    runner = runner_of()
    batch = two_sequences([0, 0], [60, 25])
    batch.block_tables[group, 1, 0] = -1
    last = runner.num_blocks[group] - 1
    with pytest.raises(ValueError, match=f"block_tables: expected 0 to {last}, got -1"):
        runner.run(batch)


@pytest.mark.parametrize("kv_dtype", ["int4", "k=int8,v=int4", "k=int4,v=bf16"])
@pytest.mark.parametrize("block_size", [16, 32, 64])
def test_chunks_and_company(block_size: int, kv_dtype: str) -> None:
    """Alone in one go, in chunks, and beside sequences that have other sinks."""
    runner = make_runner(
        MODEL, POOL, num_blocks=400, max_rows=600, kv_dtype=kv_dtype, block_size=block_size,
        kv_sinks=4,
    )  # fmt: skip
    each = [range(s * 19, s * 19 + 19) for s in range(3)]
    tables = [[[*blocks] for blocks in each]] * 5
    ends = [280, 290, 70]
    alone = []
    for k, end in enumerate(ends):  # whole, beside one row of each of the others
        counts = [end if seq == k else 1 for seq in range(3)]
        alone.append(runner.run(batch_of([0] * 3, counts, tables)).logits[k : k + end])
    together = runner.run(batch_of([0] * 3, [100, 200, 70], tables)).logits
    for want, rows in zip(alone, np.split(together, [100, 300]), strict=True):
        assert np.array_equal(rows, want[: len(rows)])
    for first, count in (([100, 200, 10], [5, 3, 30]), ([105, 203, 20], [1, 1, 1]),
                         ([106, 204, 1], [174, 1, 3]), ([279, 205, 69], [1, 85, 1])):  # fmt: skip
        got = np.split(runner.run(batch_of(first, count, tables)).logits, np.cumsum(count)[:-1])
        for want, rows, begin in zip(alone, got, first, strict=True):
            assert np.array_equal(rows, want[begin : begin + len(rows)])


def test_a_chunk_that_only_its_sinks_tell_apart_is_not_shared() -> None:
    """Two sequences have all blocks but their sinks in common."""
    runner = runner_of(max_rows=300)
    blocks, text = list(range(1, 10)), TOKENS[:281]
    others = [[[0, *blocks]] * 2] * 3
    first, second = ([group[:1] for group in others] + [[[at]]] * 2 for at in (0, 1))

    def last_rows(count: int, tables: list[list[list[int]]]) -> list[NDArray[np.float32]]:
        """Logits of the last token, which is stored, of so many sequences."""
        spans, wants = [(text[-1:], 280)] * count, [Asked(Want.LOGITS)] * count
        batch = make_batch(spans, tables, range(count), wants, write_starts=[281] * count)
        return [*runner.run(batch).logits]

    for tokens, tables in (([5] * 32, second), (text, first)):  # other sinks, then all
        wants = [Asked(Want.ARGMAX)]
        runner.run(make_batch([(tokens, 0)], tables, [len(tokens) - 1], wants))
    got = last_rows(2, [*others, [[0], [1]], [[0], [1]]])
    want = [*last_rows(1, first), *last_rows(1, second)]
    assert np.array_equal(got, want)
    assert not np.array_equal(want[0], want[1])


INT4 = native.KVLayout(2, 2, 32, 32, "int4", "int4", 32)
BF16 = native.KVLayout(2, 2, 32, 32, "bf16", "bf16", 32)
ANOTHER = "groups sinks: expected a group that has none itself"


@pytest.mark.parametrize(
    ("layout", "sinks", "more", "why"),
    [
        (INT4, 1, [], "groups sinks: expected 0 to 0, got 1"),
        (INT4, 0, [], ANOTHER),
        (INT4, 1, [(INT4, 0, 2), (BF16, 0, None)], ANOTHER),
        (INT4, 2, [(INT4, 0, 2), (BF16, 0, None)], "groups sinks: expected another group for each"),
        (
            INT4,
            1,
            [(BF16, 20, None)],
            "groups window, of sinks and beside them: expected 0, got 20",
        ),
        (BF16, 1, [(BF16, 0, None)], "groups sinks: expected beside int4 pages"),
        (INT4, 1, [(INT4, 0, None)], "groups sinks: expected bf16 pages"),
    ],
)
def test_groups_whose_sinks_do_not_fit_are_refused(
    layout: native.KVLayout, sinks: int, more: list[Any], why: str
) -> None:
    parts = make_parts()
    parts.layout, parts.sinks, parts.more_groups = layout, sinks, more
    with pytest.raises(ValueError, match=re.escape(why)):
        parts.build()


def test_an_op_may_not_name_sinks() -> None:
    parts = make_parts()
    parts.layout, parts.sinks, parts.more_groups = INT4, 1, [(BF16, 0, None)]
    parts.build()
    parts.records["group"][parts.ops.index("QKV")] = 1
    with pytest.raises(ValueError, match="group: expected one that is no other's sinks"):
        parts.build()
