"""The line of figures after an answer."""

from __future__ import annotations

from octavo.cli.answer import figures_line
from octavo.records import CacheReason, CacheRecord, CacheSource
from octavo.request import Completion, Metrics, RequestOutput, Usage


def output(usage: Usage, metrics: Metrics) -> RequestOutput:
    record = CacheRecord(0, CacheSource.NONE, CacheReason.COLD, 0, None, None)
    return RequestOutput(
        (1,), (Completion("x", (2,), None, "stop"),), usage, record, metrics, seed=1
    )


def test_the_figures_of_a_short_answer_fit_a_terminal_and_what_was_not_measured_is_left_out() -> (
    None
):
    line = figures_line(output(Usage(36, 96, 0), Metrics(1.0, 1.0, 3018.4, 336.2, 3_691_000)))
    assert line == "[36 prompt tokens, 0 cached, 3,018 tok/s · 96 new, 336 tok/s · KV 3.52 MiB]"
    assert len(line) < 78
    line = figures_line(output(Usage(1, 1, 0), Metrics(1.0, None, None, None, 1024)))
    assert line == "[1 prompt token, 0 cached · 1 new · KV 1 KiB]"
