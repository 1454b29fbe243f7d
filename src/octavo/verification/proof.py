"""Proof: goes through the scenarios on one set of weights, and says of each what was found."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from octavo.config import EngineConfig
from octavo.engine.runner import Runner, blocks_bytes
from octavo.errors import UsageError, counted
from octavo.kernels import default_isa, native, thread_pool
from octavo.loaded_model import open_model
from octavo.verification.cases import NEW, Cases
from octavo.verification.recorder import Tamper
from octavo.verification.reference import Comparison, Difference, Reference
from octavo.verification.report import Report, ScenarioResult
from octavo.verification.scenarios import MAX_ROWS, Claim, Claims, Stage, scenarios
from octavo.verification.trial import Answers, Case, Findings, Subject, Trial
from octavo.weights.model_weights import load_weights

LONGEST = 384  # tokens of a sequence: attention's second chunk begins at 256
SHORTEST = 128
_PAST_WINDOWS = 128  # tokens beyond the longest window, so that it lets blocks go

OnResult = Callable[[ScenarioResult], None]


def verify(
    model: str | Path, config: EngineConfig, *, on_result: OnResult = lambda _: None
) -> Report:
    """Verify a model with these choices of dtypes, block size and threads; `on_result` is told of
    each scenario as it ends. Raises UsageError, ModelError."""
    header, program = open_model(model)
    _check_context(header.config.context)
    pool = thread_pool(config.threads)
    weights = load_weights(header, program.weights(), pool, asked=config.weights)
    past_windows = max(spec.window for spec in program.groups) + _PAST_WINDOWS
    longest = min(max(LONGEST, past_windows), header.config.context)
    subject = Subject(program, weights, longest)
    return Proof(subject, config).run(on_result)


class Proof:
    def __init__(
        self, subject: Subject, config: EngineConfig, tamper: Tamper | None = None
    ) -> None:
        """`tamper` damages what the engines of the scenarios run, never the reference."""
        _check_context(subject.context)
        windows = [spec.window for spec in subject.program.groups]
        self.cases = Cases(
            config.block_size, subject.context, subject.program.vocab_size,
            window=min(filter(None, windows), default=0),
        )  # fmt: skip
        self.threads = config.threads or native.usable_cpus()
        self.has_sinks = config.kv_sink_tokens > 0
        self.has_windows = any(0 < window < subject.context - 2 * NEW for window in windows)
        self._subject = subject
        self._config = replace(config, step_ms=None, kv_idle=float("inf"), max_num_seqs=64)
        self._tamper = tamper or Tamper()
        self._pools: dict[int, native.ThreadPool] = {}
        self._answers: dict[Case, Answers] = {}
        num_blocks = -(-subject.context // config.block_size)
        self._reference = Reference(
            Runner(
                subject.program, subject.weights, self._config,
                pool=self._pool(1), context=subject.context,
                kv_budget=blocks_bytes(subject.program, self._config, num_blocks),
                max_rows=subject.context,
            )
        )  # fmt: skip
        self._findings = self._begin()

    def run(self, on_result: OnResult) -> Report:
        began = time.monotonic()
        report = Report(self._subject.program.logits_width, self.threads, default_isa())
        for name, scenario in scenarios(self):
            report.scenarios.append(self._run(name, scenario))
            on_result(report.scenarios[-1])
        report.reference_rows = len(self._reference)
        report.seconds = time.monotonic() - began
        return report

    def trial(
        self,
        *,
        num_blocks: int = 2 * MAX_ROWS // 16,
        num_sequences: int = 1,
        max_rows: int = MAX_ROWS,
        threads: int | None = None,
        **options: Any,
    ) -> Trial:
        return Trial(
            self._subject, replace(self._config, **options), self._findings,
            tamper=self._tamper, pool=self._pool(threads or self.threads),
            num_blocks=num_blocks, num_sequences=num_sequences, max_rows=max_rows,
        )  # fmt: skip

    def _run(self, name: str, scenario: Callable[[Stage], Claims]) -> ScenarioResult:
        began = time.monotonic()
        self._findings = self._begin()
        claims = scenario(self)
        difference = self._findings.comparison.finish()
        if difference is None:  # else its tokens are no measure for others
            self._answers = self._findings.answers
        return ScenarioResult(
            name=name,
            requests=len(self._findings.requests),
            rows=self._findings.comparison.num_rows,
            events={c.event: c.count for c in claims},
            seconds=time.monotonic() - began,
            difference=difference,
            problem=self._problem(difference, claims),
        )

    def _begin(self) -> Findings:
        return Findings(Comparison(self._reference), dict(self._answers))

    def _problem(self, difference: Difference | None, claims: list[Claim]) -> str | None:
        if difference is not None:
            return self._in_words(difference)
        if self._findings.problems:
            return self._findings.problems[0]
        missing = [c for c in claims if not c.holds]
        if missing:
            said = ", ".join(f"{c.event} {c.count:,}" for c in missing)
            return f"what it is about did not happen: {said}"
        return None if self._findings.comparison.num_rows else "no row was compared"

    def _in_words(self, found: Difference) -> str:
        request = self._findings.requests[found.request]
        by = "one is not finite" if found.largest is None else f"by up to {found.largest:.3g}"
        return (
            f"request {found.request} ({counted(request.num_prompt_tokens, 'token')}), position "
            f"{found.position}: {found.values:,} of {self._subject.program.logits_width:,} logits "
            f"differ, {by}"
        )

    def _pool(self, threads: int) -> native.ThreadPool:
        if threads not in self._pools:
            self._pools[threads] = thread_pool(threads)
        return self._pools[threads]


def _check_context(context: int) -> None:
    if context < SHORTEST:
        raise UsageError(
            f"verify needs a context of at least {SHORTEST} tokens, the model has {context:,}"
        )
