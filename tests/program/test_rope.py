"""Cosines and sines that come as needed are those that are computed at once, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from octavo.program.ops import RopeTable
from octavo.program.rope import CosSinRows, CosSinTables, cos_sin

CONTEXT = 1000
ALL = np.arange(CONTEXT, dtype=np.int32)
TABLES = [
    RopeTable(tuple(10_000.0 ** (-2 * i / 20) for i in range(10))),
    RopeTable(tuple(1_000_000.0 ** (-2 * i / 6) for i in range(3)), amplitude=1.2),
]


def at(*positions: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array(positions, np.int32)


def test_what_grows_has_the_same_bits_as_what_is_computed_at_once() -> None:
    whole = [cos_sin(table, ALL) for table in TABLES]
    growing = CosSinTables(TABLES, CONTEXT)
    for last in (0, 2, 256, 255, 699, CONTEXT - 1):
        growing.turn(at(0, last))
        for ours, theirs in zip(growing.arrays, whole, strict=True):
            for found, expected in zip(ours, theirs, strict=True):
                assert found.shape == expected.shape
                assert np.array_equal(found[: last + 1], expected[: last + 1])


def test_what_was_reached_is_not_computed_again_and_what_lies_far_ahead_not_yet() -> None:
    growing = CosSinTables(TABLES, CONTEXT)
    growing.turn(at(9))
    (cos, _), _ = growing.arrays
    assert not cos[-1].any()
    cos[5] = 7
    growing.turn(at(8))
    growing.turn(at(CONTEXT - 1))
    assert (cos[5] == 7).all()
    assert cos[-1].any()


def test_the_tables_end_with_the_context() -> None:
    growing = CosSinTables(TABLES, 5)
    growing.turn(at(4))
    assert np.array_equal(growing.arrays[0][1], cos_sin(TABLES[0], ALL[:5])[1])
    assert CosSinTables([], 5).arrays == []


def test_those_of_a_steps_rows_are_at_any_positions() -> None:
    rows = CosSinRows(TABLES, 4)
    for positions in (at(7, 3, 2**30 - 1), at(999), at(0, 1, 2, 3)):
        rows.turn(positions)
        for table, ours in zip(TABLES, rows.arrays, strict=True):
            for found, expected in zip(ours, cos_sin(table, positions), strict=True):
                assert found.shape == (4, len(table.frequencies))
                assert np.array_equal(found[: len(positions)], expected)
    known = [np.array(each[0][:2]) for each in rows.arrays]
    rows.turn(at(0, 1))
    assert all(np.array_equal(a, each[0][:2]) for a, each in zip(known, rows.arrays, strict=True))


def test_a_table_may_turn_no_further_than_a_position() -> None:
    bounded = replace(TABLES[1], last=40)
    cos, sin = cos_sin(bounded, at(39, 40, 41, 900))
    free = cos_sin(TABLES[1], at(39, 40, 40, 40))
    assert np.array_equal(cos, free[0])
    assert np.array_equal(sin, free[1])
