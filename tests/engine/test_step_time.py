"""The time of a step through the whole engine, on a clock that only the model's rows move."""

from __future__ import annotations

from typing import Any

from octavo.engine.engine import Engine
from octavo.serving.request_text import metrics
from tests.engine.busy import MODEL, POOL
from tests.engine.tiny_engine import add, tiny_engine


class Machine:
    """A row takes `row` seconds, a step `fixed` more."""

    def __init__(self, row: float, fixed: float) -> None:
        self.now, self.row, self.fixed = 0.0, row, fixed

    def engine(self, **options: Any) -> Engine:
        engine = tiny_engine(
            MODEL, POOL, num_blocks=64, max_rows=512, clock=lambda: self.now, **options
        )
        real = engine.runner.forward

        def forward(plan: Any) -> Any:
            self.now += self.fixed + self.row * len(plan.batch.tokens)
            return real(plan)

        engine.runner.forward = forward  # type: ignore[method-assign]
        return engine


def first_chunks(engine: Engine, count: int) -> list[int]:
    """Return the rows of the first chunk of a new prompt in each step: all begin at 0."""
    for _ in range(count):
        request = add(engine, [len(engine.records), *range(500)])
        engine.step()
        engine.finish(request, "abort")
    return [r.computed_tokens for r in list(engine.records)[-count:]]


def test_a_clock_twice_as_slow_halves_the_chunk_within_three_steps() -> None:
    """A first chunk of 128 rows teaches the rate. 160 rows take 98 ms; slow, 196 ms, which a second
    step has to confirm. The third takes 64: 96 would take 119 ms."""
    machine = Machine(row=0.0006, fixed=0.002)
    engine = machine.engine(step_ms=100)
    assert first_chunks(engine, 6) == [128, 160, 160, 160, 160, 160]
    machine.row, machine.fixed = 2 * machine.row, 2 * machine.fixed
    assert first_chunks(engine, 5) == [160, 160, 64, 64, 64]
    machine.row, machine.fixed = machine.row / 2, machine.fixed / 2
    assert first_chunks(engine, 5)[-1] == 160


def test_without_a_target_a_step_is_bounded_by_its_rows_alone() -> None:
    engine = Machine(row=0.0006, fixed=0.002).engine(step_ms=None)
    assert first_chunks(engine, 2) == [501, 501]


def test_a_chat_goes_on_in_every_step_of_a_long_prompt() -> None:
    """A token a step, and no step of more than 100 ms once the rate is known."""
    engine = Machine(row=0.0006, fixed=0.002).engine(step_ms=100)
    chat = add(engine, [5, 6, 7], max_tokens=30, ignore_eos=True)
    engine.step()
    add(engine, [*range(900)], max_tokens=1)
    for made in range(2, 8):
        engine.step()
        assert chat.branches[0].num_completion_tokens == made
    steps = list(engine.records)[1:]
    assert steps[0].computed_tokens == 1 + 128
    assert max(r.seconds for r in steps) <= 0.1
    assert min(r.computed_tokens for r in steps) >= 1 + 32


def test_metrics_of_several_answers_to_a_prompt_that_was_found() -> None:
    """A row a second. Of the second request's 40 tokens one runs; then three decodes a step, whose
    last three of four tokens count: nine tokens in nine seconds."""
    engine = Machine(row=1.0, fixed=0.0).engine(step_ms=None)
    for n in (1, 3):
        request = add(engine, range(40), max_tokens=4, n=n, seed=1, temperature=1, ignore_eos=True)
        while engine.has_unfinished:
            engine.step()
    found = metrics(request)
    assert (found.ttft_ms, found.prefill_tps) == (1000, 1)
    assert (found.tpot_ms, found.decode_tps) == (1000, 1)
