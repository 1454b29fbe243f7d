"""Verification finds nothing on a whole engine, compares every row and counts what happened."""

from __future__ import annotations

from dataclasses import replace

import pytest

from octavo.errors import UsageError
from octavo.kernels import native
from octavo.verification import Report
from tests.tiny import TINY, tiny_model
from tests.verification.proving import NAMES, WINDOWED, failed, prove


def events(report: Report, name: str) -> dict[str, int]:
    return next(s.events for s in report.scenarios if s.name == name)


@pytest.mark.parametrize(
    ("kv", "activations"), [("bf16", "int8"), ("f32", "bf16"), ("k=int4,v=int8", "int8")]
)
def test_a_whole_engine_changes_no_bit(kv: str, activations: str) -> None:
    report = prove(context=384, kv_dtype=kv, activations=activations)
    sinks_are_blocks = "int4" in kv
    names = [n for n in NAMES if not (sinks_are_blocks and n.startswith("blocks of"))]
    assert [s.name for s in report.scenarios] == names
    assert failed(report) == []
    assert report.exact
    assert report.logits == report.rows * TINY.vocab_size
    assert report.rows == sum(s.rows for s in report.scenarios) > 2000


@pytest.fixture(scope="module")
def whole() -> Report:
    return prove(context=384)  # prompts of 1, 2, 31, 32, 33, 128 and 288 tokens


def test_every_row_that_a_token_is_drawn_from_is_compared(whole: Report) -> None:
    rows = {s.name: s.rows for s in whole.scenarios}
    assert rows["alone"] == rows["batched"] == rows["chunked"] == 7 * 12
    assert rows["shared: full hit"] == 14 * 12
    # The first row of a request is drawn from for all its answers: 3 answers, 2, and 1 beside them.
    assert rows["forked: n answers"] == (1 + 3 * 11) + (1 + 2 * 11) + 12
    # A search takes one row, then one for each beam: searches of 3 and 2 beams, each twice.
    assert rows["forked: beams"] == 2 * ((1 + 3 * 11) + 12 + (1 + 2 * 11))


def test_what_happened_is_counted(whole: Report) -> None:
    assert events(whole, "alone") == {"rows from pages": 77}
    assert events(whole, "batched") == {"in one step": 7}
    assert events(whole, "shared: full hit") == {
        "tokens found": 515 - 7,  # the last of each runs again
        "rows read, not stored": 7,
        "blocks copied": 4,  # the four whose answer begins inside a block that others could find
    }
    assert events(whole, "shared: next turn")["tokens found"] == 515 + 7 * 11
    assert events(whole, "shared: together") == {"tokens found": 4 * 192}
    assert events(whole, "blocks of 16")["tokens a block"] == 16
    assert events(whole, "3 threads")["threads"] == 3


@pytest.mark.parametrize(("block_size", "context"), [(16, 128), (16, 384), (64, 128), (64, 150)])
def test_every_event_happens_at_every_size(block_size: int, context: int) -> None:
    report = prove(context=context, block_size=block_size)
    assert failed(report) == []
    others = {f"blocks of {size}" for size in (16, 32, 64) if size != block_size}
    assert others <= {s.name for s in report.scenarios}


def test_other_thread_counts_are_those_that_are_not_the_own() -> None:
    report = prove(threads=2)
    assert [s.name for s in report.scenarios][-2:] == ["1 thread", "3 threads"]
    assert report.exact


def test_a_short_context_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 128 tokens, the model has 127"):
        prove(context=127)


def test_a_model_with_windows_lets_blocks_go_and_changes_no_bit() -> None:
    report = prove(model=WINDOWED)
    at = NAMES.index("all at once") + 1
    assert [s.name for s in report.scenarios] == [*NAMES[:at], "windows slide", *NAMES[at:]]
    assert failed(report) == []
    assert report.exact
    # a prompt of 104 tokens and its answer, all but the last found; 33 of the one that parts
    assert events(report, "windows slide") == {"blocks let go": 5, "tokens found": 148}


@pytest.mark.parametrize("block_size", [16, 32, 64])
@pytest.mark.parametrize("windowed", [(True, True), (False, True)])
def test_where_layers_are_windowed_requests_still_run_out_of_room(
    block_size: int, windowed: tuple[bool, ...]
) -> None:
    model = tiny_model(replace(TINY, window=24, windowed=windowed), native.ThreadPool(2))
    report = prove(model=model, context=192, block_size=block_size)
    assert failed(report) == []
    assert "windows slide" in [s.name for s in report.scenarios]
