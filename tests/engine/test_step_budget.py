"""StepBudget against simulated machines, whose true speed it can only learn from their steps."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.engine.step_budget import FIRST_CHUNK, UNITS_PER_BYTE, StepBudget
from octavo.program.cost import uniform_weights
from octavo.program.ops import Experts, KVSpec
from tests.engine.machine import (
    HEAD,
    KV,
    PAIR,
    READ,
    ROW,
    TARGET,
    Machine,
    budget,
    decode,
    longest,
    measured,
    pairs,
    run_step,
)
from tests.exactness.programs import Grouped, grouped

# ---- what a chunk may be


def test_the_first_chunk_is_cautious_and_the_second_knows_the_machine() -> None:
    it = budget()
    # 0.4 ms a row, 0.25 us a pair and 3 ms a step: 128 rows take 56 ms, the next 192 take 91 ms,
    # 160 rows at a depth of 320 take 83 ms and would take 97 with 32 more.
    assert FIRST_CHUNK == 128
    ends = [0]
    while ends[-1] < 512:
        ends.append(run_step(it, Machine(), ends[-1], 512))
    assert ends == [0, 128, 128 + 192, 512 - 32, 512]


def test_before_anything_was_measured_all_prompts_share_one_first_chunk() -> None:
    step = budget()
    step.take(0, step.fit(0, 100))
    assert step.fit(0, 100) == 0  # 28 rows are left: no whole tile
    assert step.fit(0, 28) == 28


def test_a_chunk_of_two_rows_is_a_chunk() -> None:
    """It takes of the first chunk's rows, and what was promised to the first chunk of a step."""
    step = budget()
    step.take(40, 42)
    assert step.fit(0, 126) == 126
    assert step.fit(0, 127) == 96


def test_without_a_target_only_max_rows_counts() -> None:
    step = budget(target_seconds=None, max_rows=500)
    step.take(300, 301)
    assert step.fit(0, 9000) == 499
    step.observe([(0, 100)], 1000.0)  # a very slow machine
    step.open()
    assert step.fit(7, 200) == 200
    step.take(7, 200)
    assert step.rows_left == 307
    step.take(0, step.fit(0, 1000))
    assert step.rows_left == 0
    assert step.fit(0, 1) == 0


def test_chunks_with_more_to_come_are_whole_tiles_and_a_last_one_is_what_is_left() -> None:
    step = measured()
    assert step.fit(45, 5000) == 45 + 224
    assert step.fit(45, 45 + 250) == 45 + 224
    assert step.fit(45, 45 + 238) == 45 + 238
    step.take(0, 235)
    assert step.fit(0, 200) == 0  # less than a tile fits
    assert step.fit(0, 9) == 9


def test_deeper_chunks_are_smaller() -> None:
    it = measured()
    by_depth = [it.fit(begin, 10**6) - begin for begin in range(0, 8192, 512)]
    assert by_depth == sorted(by_depth, reverse=True)
    # In units of the model: 224 rows at the start cost what 32 x 1.27e9 do at a depth of 7,680.
    assert (by_depth[0], by_depth[4], by_depth[-1]) == (224, 96, 32)


def test_a_chunk_costs_its_matmuls_and_pairs_within_the_target() -> None:
    it = measured()
    rate = (READ + 128 * ROW + HEAD + PAIR * pairs(0, 128)) / 0.050
    for begin in (0, 333, 2048):
        end = it.fit(begin, 10**6)
        cost_of = [(READ + n * ROW + HEAD + PAIR * pairs(begin, begin + n)) / rate
                   for n in (end - begin, end - begin + 32)]  # fmt: skip
        assert cost_of[0] <= TARGET < cost_of[1] * 1.001


def test_many_decodes_leave_min_chunk_to_the_first_prompt_and_nothing_to_the_second() -> None:
    step = measured()
    decode(step, 200, context=4001)
    assert step.fit(0, 5000) == 32
    assert step.fit(0, 20) == 20
    step.take(0, 32)
    assert step.fit(0, 5000) == 0
    assert step.fit(0, 1) == 0


def test_max_rows_is_never_passed() -> None:
    step = budget(max_rows=64)
    step.observe([(0, 64)], 0.001)
    decode(step, 50, context=11)
    assert step.fit(0, 5000) == 14  # the first chunk's min_chunk, as far as there is room
    step.take(0, 14)
    assert step.fit(0, 1) == 0


def test_decodes_that_ride_along_cost_their_reads_but_not_the_weights() -> None:
    it = measured()
    alone, beside = (longest(it, count, context=2500) for count in (0, 6))
    # The step may cost 60.0e9; 224 rows from 0 cost 52.8e9 with the weights, 192 cost 45.0e9. The
    # six cost 1.6e9 for their rows and 6 x 2,500 x 23,040 bytes x 18 = 6.2e9 for their reads.
    assert (alone, beside) == (224, 192)


def test_a_decode_of_a_mixture_is_priced_by_the_experts_that_it_reads() -> None:
    """A machine whose bytes cost what is assumed teaches nothing by its decodes."""
    program = grouped(Grouped((KVSpec(2, 32, 32),), 2, 40, experts=8))  # a row meets two
    sizes = uniform_weights(program, 8)
    experts = sum(
        sizes[spec.name] for op in program.ops if isinstance(op, Experts) for spec in op.weights
    )
    read = 1e9 * (1 - 0.75 * experts / sum(sizes.values()))
    assert read < 0.6e9

    def learned(steps: int) -> StepBudget:
        it = budget(program, weight_bytes=1e9, max_rows=10**6)
        it.observe([(0, 1000)], 0.05)
        seconds = it.seconds(0, 64)
        assert seconds is not None
        for _ in range(steps):
            it.observe([(0, 1)], read * UNITS_PER_BYTE * seconds / it.units(0, 64))
        return it

    taught, untaught = (longest(learned(steps), 8, context=10_000) for steps in (3, 0))
    assert taught == untaught
    assert 32 < taught < longest(learned(0))  # their reads cost something


@settings(deadline=None)
@given(
    st.floats(0.05e-3, 0.6e-3),  # 20,000 to 1,700 rows a second
    st.floats(0.7, 1.5),  # attention's true weight over the assumed one
    st.floats(0.0, 0.08),  # fixed part of a step over the target
    st.floats(0.3, 3.0),  # speed of reads over the assumed one
    st.lists(st.integers(0, 8), min_size=6, max_size=6),
    st.integers(0, 2**32),
)
def test_p95_of_long_prompts_among_decodes_is_within_1_3_of_the_target(
    row: float, weight: float, fixed: float, reads: float, riding: list[int], seed: int
) -> None:
    machine = Machine(
        row=row,
        pair=row * PAIR / ROW * weight,
        fixed=fixed * TARGET,
        kv_token=row * KV * 18 / ROW * reads,
        noise=0.12,
        random=random.Random(seed),
    )
    it = budget()
    times: list[float] = []
    for number, count in enumerate(riding):
        done, length = 0, 3000 + 1000 * (number % 4)
        decodes = [(400 * i, 400 * i + 1) for i in range(count)]
        while done < length:
            end = run_step(it, machine, done, length, decodes)
            if end - done > 32:  # min_chunk is owed whatever it takes
                times.append(machine.last)
            done = end
    times = sorted(times[3:])
    if times:
        assert times[int(0.95 * (len(times) - 1))] <= 1.3 * TARGET
