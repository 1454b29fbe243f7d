"""What steps teach a StepBudget of the machine's speed, and the seconds it tells from that."""

from __future__ import annotations

import pytest

from octavo.engine.step_budget import StepBudget
from octavo.program.cost import Work, cost, uniform_weights
from octavo.program.kv_bytes import PageFormats
from octavo.program.program import Program
from tests.engine.machine import (
    BF16,
    HEAD,
    KV,
    PAIR,
    READ,
    ROW,
    WEIGHTS,
    Machine,
    budget,
    longest,
    measured,
    pairs,
    run_step,
)
from tests.program.test_native_groups import two_groups


def settled(machine: Machine) -> StepBudget:
    it = budget()
    for _ in range(4):
        run_step(it, machine, 0, 10**6)
    return it


def test_twice_as_slow_a_clock_halves_the_chunk_within_three_steps_and_back() -> None:
    it = settled(Machine(row=0.2e-3, pair=0.1e-6, fixed=0))
    slow = Machine(row=0.4e-3, pair=0.2e-6, fixed=0)
    before = longest(it)
    got = [run_step(it, slow, 0, 10**6) for _ in range(4)]
    assert before == 448
    assert got == [448, 448, 224, 224]
    fast = Machine(row=0.2e-3, pair=0.1e-6, fixed=0)
    assert [run_step(it, fast, 0, 10**6) for _ in range(4)] == [224, 224, 448, 448]


def test_one_outlier_changes_nothing() -> None:
    it = settled(Machine())
    before = longest(it)
    for factor in (20, 1, 1, 1 / 20, 1):
        it.observe([(0, before)], factor * Machine().seconds([(0, before)]))
        assert abs(longest(it) - before) <= 32


@pytest.mark.parametrize("slower", [0.2, 1, 5])
def test_steps_of_decodes_alone_do_not_teach_the_rate_of_chunks(slower: float) -> None:
    it = settled(Machine())
    before = longest(it)
    for context in range(500, 600):
        it.observe([(context, context + 1)], 3e-3 * slower)
    assert longest(it) == before
    for _ in range(50):
        it.observe([(100, 101)] * 40, 0.040 * slower)  # 40 rows: between the two kinds
    assert longest(it) == before


def test_a_short_tail_of_a_prompt_does_not_teach_the_rate() -> None:
    it = settled(Machine())
    before = longest(it)
    for _ in range(5):
        it.observe([(0, 31)], 1.0)
    assert longest(it) == before
    for _ in range(5):
        it.observe([(0, 16), (0, 16)], 1.0)  # two prompts that make a tile together do
    assert longest(it) == 32


def test_decodes_alone_teach_what_reading_costs() -> None:
    def beside(read_seconds: float | None, decodes: int = 16) -> int:
        it = measured()
        if read_seconds is not None:
            it.observe([(1999, 2000)], (WEIGHTS + KV * 2000) * read_seconds)
        return longest(it, decodes, context=2000)

    # A byte is worth 18 units at 6.00e11 a second until measured: 33.3 GB/s. The step may cost
    # 60.0e9 units; the sixteen cost 4.3e9 for their rows, 13.3e9 for their reads at that speed.
    assert beside(None) == 160
    assert beside(1 / 33.3e9) == 160
    assert beside(1 / 66.7e9) == 192
    assert beside(1 / 16.7e9) == 96
    assert beside(1e-15) == 192  # and no less than the arithmetic of their attention, 4.5e9
    assert beside(1.0, 3) == beside(8 / 33.3e9, 3) == 160  # believed up to 8 times


def test_steps_of_many_decodes_teach_neither_price() -> None:
    it = settled(Machine())

    def beside() -> int:
        return longest(it, 8, context=4000)

    before = beside()
    for _ in range(5):
        it.observe([(100, 101)] * 40, 0.040)  # mostly arithmetic: as bytes, 7 times their price
    assert beside() == before
    for _ in range(5):
        it.observe([(100, 101)] * 3, 0.040)
    assert beside() < before


def test_a_clock_that_did_not_move_teaches_nothing() -> None:
    it = budget()
    it.observe([(0, 128)], 0.0)
    assert it.seconds(0, 1) is None


# ---- a record's time saved


def test_seconds_are_what_rows_add_at_the_measured_rate() -> None:
    assert budget().seconds(0, 100) is None
    it = measured()
    rate = (READ + 128 * ROW + HEAD + PAIR * pairs(0, 128)) / 0.050
    want = (400 * ROW + PAIR * pairs(600, 1000)) / rate
    assert it.seconds(600, 1000) == pytest.approx(want, rel=1e-3)
    whole, first = (it.seconds(0, length) or 0.0 for length in (1000, 600))
    assert whole == pytest.approx(first + want, rel=1e-3)


def test_units_are_those_of_the_cost_interpreter_with_windows() -> None:
    program = two_groups()  # one with a window of 20
    it = budget(program, weight_bytes=1e-9, target_seconds=1.0, max_rows=4096)
    it.observe([(0, 64)], 1.0)
    flops = {w: flops_of(program, w) for w in (Work(64), Work(300), Work(40, 700))}
    rate = flops[Work(64)]  # head included, as in the step
    head = 2 * 300 * 64
    for work in (Work(300), Work(40, 700)):
        got = it.seconds(work.past, work.length)
        assert got == pytest.approx((flops[work] - head) / rate, rel=1e-12)


def flops_of(program: Program, work: Work) -> float:
    """Attention counts twice."""
    weight_bytes = uniform_weights(program, 8)
    ops = cost(program, work, weight_bytes=weight_bytes, formats=PageFormats.everywhere(BF16))
    return sum(op.flops * (2 if op.op_class == "attention" else 1) for op in ops)
