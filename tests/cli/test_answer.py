"""The lines of figures after an answer."""

from __future__ import annotations

from octavo.cli.answer import figures_line
from octavo.cli.stats import cache_line
from octavo.records import CacheReason, CacheRecord, CacheSource
from octavo.request import Completion, Metrics, RequestOutput, Usage

COLD = CacheRecord(0, CacheSource.NONE, CacheReason.COLD, 0, None, None)


def output(usage: Usage, metrics: Metrics, record: CacheRecord = COLD) -> RequestOutput:
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


def test_of_what_a_window_cut_short_it_is_told_how_much_is_kept() -> None:
    record = CacheRecord(
        256, CacheSource.PROCESS, CacheReason.WINDOW, saved_ms=12.3, known_tokens=2000
    )
    line = cache_line(output(Usage(2100, 1, 256), Metrics(1.0, None, None, None, 1024), record))
    assert line == (
        "cache: 256 of 2,100 prompt tokens reused from this process, 12.3 ms of prefill saved; "
        "window: 2,000 are kept, but not all that windowed layers read"
    )
