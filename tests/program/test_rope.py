"""Tables of cosines and sines that grow are those that are computed at once, bit for bit."""

from __future__ import annotations

import numpy as np

from octavo.program.ops import RopeTable
from octavo.program.rope import CosSinTables, cos_sin

CONTEXT = 1000
TABLES = [
    RopeTable(tuple(10_000.0 ** (-2 * i / 20) for i in range(10))),
    RopeTable(tuple(1_000_000.0 ** (-2 * i / 6) for i in range(3)), amplitude=1.2),
]


def test_what_grows_has_the_same_bits_as_what_is_computed_at_once() -> None:
    whole = [cos_sin(table, CONTEXT) for table in TABLES]
    growing = CosSinTables(TABLES, CONTEXT)
    for positions in (1, 3, 257, 256, 700, CONTEXT):
        growing.reach(positions)
        for ours, theirs in zip(growing.arrays, whole, strict=True):
            for found, expected in zip(ours, theirs, strict=True):
                assert found.shape == expected.shape
                assert np.array_equal(found[:positions], expected[:positions])


def test_what_was_reached_is_not_computed_again_and_what_lies_far_ahead_not_yet() -> None:
    growing = CosSinTables(TABLES, CONTEXT)
    growing.reach(10)
    (cos, _), _ = growing.arrays
    assert not cos[-1].any()
    cos[5] = 7
    growing.reach(9)
    growing.reach(CONTEXT)
    assert (cos[5] == 7).all()
    assert cos[-1].any()


def test_the_tables_end_with_the_context() -> None:
    growing = CosSinTables(TABLES, 5)
    growing.reach(5)
    assert np.array_equal(growing.arrays[0][1], cos_sin(TABLES[0], 5)[1])
    assert CosSinTables([], 5).arrays == []
