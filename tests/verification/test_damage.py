"""Verification finds each kind of damage where it was done, and proves nothing from nothing."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from octavo.batch import Batch
from octavo.config import EngineConfig
from octavo.engine.runner import Runner
from octavo.kv_cache.cache import KeepLast, Transfer
from octavo.verification import Report, Tamper
from octavo.verification import proof as proof_module
from octavo.verification.scenarios import Claim, Claims, Stage
from tests.verification.proving import NAMES, WINDOWED, failed, prove


@dataclass
class Once(Tamper):
    """Damages the first batch of scenario number `scenario` that `damage` can do something to."""

    damage: Callable[[Runner, Batch], Batch | None]
    done: bool = False

    def batch(self, runner: Runner, batch: Batch) -> Batch:
        damaged = None if self.done else self.damage(runner, batch)
        self.done = self.done or damaged is not None
        return batch if damaged is None else damaged


def swap_rows_of_a_chunk(runner: Runner, batch: Batch) -> Batch | None:
    """The tokens of two rows, where the rows are a chunk with more to come."""
    for begin, end in zip(batch.row_starts[:-1], batch.row_starts[1:], strict=True):
        if end - begin >= 2 and end - 1 not in batch.output_rows:
            tokens = batch.tokens.copy()
            tokens[[begin, begin + 1]] = tokens[[begin + 1, begin]]
            return replace(batch, tokens=tokens)
    return None


def exchange_a_block(runner: Runner, batch: Batch) -> Batch | None:
    """The first block of a sequence that only reads it, for another sequence's."""
    firsts = batch.positions[batch.row_starts[:-1]]
    size = runner.layouts[0].block_size
    for i, first in enumerate(firsts):
        other = batch.block_tables[:, i - 1, 0]
        if len(firsts) > 1 and first >= size and (batch.block_tables[:, i, 0] != other).all():
            tables = batch.block_tables.copy()
            tables[:, i, 0] = other
            return replace(batch, block_tables=tables)
    return None


def stale_page(runner: Runner, batch: Batch) -> Batch | None:
    """A block that is read has what another sequence wrote into its own."""
    firsts = batch.positions[batch.row_starts[:-1]]
    size = runner.layouts[0].block_size
    for i, first in enumerate(firsts):
        read, other = batch.block_tables[0, i, 0], batch.block_tables[0, i - 1, 0]
        if len(firsts) > 1 and first >= size and read != other:
            runner.transfer([Transfer("copy", 0, int(other), int(read))])
            return batch
    return None


def flip(bit: int) -> Callable[[Runner, Batch], Batch | None]:
    """One bit of one value of K, in a full block that a sequence reads: a value of a token that
    this model attends to, or no logit would tell."""

    def damage(runner: Runner, batch: Batch) -> Batch | None:
        layout = runner.layouts[0]
        if len(batch.tokens) > 1 or batch.positions[0] < layout.block_size:
            return None
        start = int(batch.block_tables[0, 0, 0]) * layout.block_stride // 2
        values = runner.pages[0].view(np.uint16)  # bf16
        values[start + 1000] ^= np.uint16(1 << bit)
        return batch

    return damage


@pytest.mark.parametrize(
    ("damage", "found_in"),
    [
        (swap_rows_of_a_chunk, "chunked"),
        (exchange_a_block, "batched"),
        (stale_page, "batched"),
        (flip(15), "alone"),
        (flip(0), "alone"),
    ],
)
def test_one_damage_is_found_where_it_was_done_and_nowhere_else(
    damage: Callable[[Runner, Batch], Batch | None], found_in: str
) -> None:
    tamper = Once(damage)
    report = prove(tamper)
    assert tamper.done
    assert not report.exact
    assert failed(report) == [found_in]
    (result,) = [s for s in report.scenarios if not s.ok]
    assert result.difference is not None
    assert result.difference.values > 0
    assert result.difference.largest is not None
    assert result.difference.largest > 0
    assert result.problem is not None
    assert f"request {result.difference.request} (" in result.problem
    assert f"position {result.difference.position}: " in result.problem


def test_the_first_difference_is_the_row_that_was_damaged() -> None:
    """The third prompt, of 63 tokens, is the first to read a full block of 64: at its 65th."""
    report = prove(Once(flip(15)), block_size=64)
    difference = report.scenarios[0].difference
    assert difference is not None
    assert (difference.request, difference.position) == (2, 64)


class SkippedCopy(Tamper):
    """One copy-on-write copy is not made: its block holds what was there before."""

    done = False

    def transfers(self, transfers: Sequence[Transfer]) -> Sequence[Transfer]:
        if not transfers or self.done:
            return transfers
        self.done = True
        return transfers[1:]


def test_a_copy_that_was_not_made_is_found() -> None:
    report = prove(SkippedCopy())
    assert failed(report) == ["shared: full hit"]  # the first scenario that copies


class OtherArithmetic(Tamper):
    def config(self, config: EngineConfig) -> EngineConfig:
        return replace(config, activations="bf16")


def test_other_arithmetic_is_found_everywhere() -> None:
    report = prove(OtherArithmetic())
    assert failed(report) == NAMES
    assert all(s.difference is not None for s in report.scenarios)


class Broken(Tamper):
    def batch(self, runner: Runner, batch: Batch) -> Batch:
        if len(batch.row_starts) > 5:
            raise ValueError("no more than four")
        return batch


def test_a_step_that_fails_is_told() -> None:
    """Run alone after it, every request gets its answer."""
    report = prove(Broken())
    problem = {s.name: s.problem for s in report.scenarios}
    assert problem["alone"] is None
    told = "a step failed, and no request caused it: no more than four"
    assert problem["batched"] == told


class Late(Tamper):
    def batch(self, runner: Runner, batch: Batch) -> Batch:
        signal.raise_signal(signal.SIGALRM)
        return batch


def test_a_verification_that_takes_too_long_ends() -> None:
    def on_alarm(*_: object) -> None:
        raise TimeoutError("too late")

    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        with pytest.raises(TimeoutError, match="too late"):
            prove(Late())
    finally:
        signal.signal(signal.SIGALRM, before)


class Dead(Tamper):
    def batch(self, runner: Runner, batch: Batch) -> Batch:
        raise ValueError("nothing runs")


def test_an_engine_that_runs_nothing_is_told() -> None:
    report = prove(Dead())
    assert failed(report) == NAMES
    assert report.scenarios[0].problem == "request 0 failed: nothing runs"


def only(monkeypatch: pytest.MonkeyPatch, scenario: Callable[[Stage], Claims]) -> Report:
    monkeypatch.setattr(proof_module, "scenarios", lambda stage: [("it", scenario)])
    return prove()


def test_a_scenario_whose_event_did_not_happen_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_sharing(stage: Stage) -> Claims:
        trial = stage.trial(prefix_cache=False)
        for _ in range(2):
            trial.run(stage.cases.mixed())
        return [Claim("rows", trial.computed, True), Claim("tokens found", trial.matched, False)]

    report = only(monkeypatch, without_sharing)
    assert not report.exact
    assert report.scenarios[0].difference is None
    assert report.scenarios[0].problem == "what it is about did not happen: tokens found 0"


def test_a_scenario_that_compares_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    report = only(monkeypatch, lambda stage: [])
    assert report.scenarios[0].problem == "no row was compared"


def test_no_scenario_proves_nothing() -> None:
    assert not Report(vocab_size=1, threads=1, isa="").exact


def test_a_block_of_a_window_that_goes_one_token_early_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def one_early(self: KeepLast, begin: int, end: int, row: int) -> bool:
        return end > row - self.window + 2

    monkeypatch.setattr(KeepLast, "needs", one_early)
    report = prove(model=WINDOWED)
    assert "windows slide" in failed(report)
    assert not report.exact
