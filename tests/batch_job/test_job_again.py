"""A batch that is run again: after a kill, over an output, with another input or model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from octavo.batch_job import Source, Summary, job
from octavo.errors import UsageError
from tests.batch_job.lines import plain, results
from tests.batch_job.running import Batch, as_llm
from tests.batch_job.shouting_llm import ShoutingLLM

ONE, TWO, THREE = plain("a", "one"), plain("b", "two"), plain("c", "three")
FOUR = [plain(f"{n}", f"p{n}") for n in range(4)]


def test_killed_and_run_again_nothing_is_done_twice(batch: Batch) -> None:
    batch.write(*FOUR).run_killed_at("p1")
    assert not batch.out.exists()
    again = ShoutingLLM()
    summary = batch.run(again)
    assert again.calls == [["p0", "p1"]]
    assert summary == Summary(4, 0, prompt_tokens=8, cached_tokens=4, completion_tokens=4)
    assert batch.said == [(f"{n}", [f"P{n}"]) for n in range(4)]
    found = _without_times(results(batch.out))
    batch.out.unlink()
    batch.run()
    assert _without_times(results(batch.out)) == found


def test_a_torn_end_costs_only_the_result_that_was_torn(batch: Batch) -> None:
    batch.write(*FOUR).run_killed_at("p0")
    batch.journal.write_bytes(batch.journal.read_bytes()[:-5])
    assert batch.run_again() == [["p0", "p1"]]
    assert [custom_id for custom_id, _ in batch.said] == ["0", "1", "2", "3"]


def test_refused_requests_are_tried_again(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "WINDOW", 1)
    batch.write(ONE, TWO).run_killed_at("two", breaks="one")
    assert batch.run_again() == [["one"], ["two"]]
    assert batch.said == [("a", ["ONE"]), ("b", ["TWO"])]


def test_what_still_stands_in_a_changed_input_is_kept(batch: Batch) -> None:
    batch.write(ONE, TWO, THREE).run_killed_at("one")
    batch.write(THREE, plain("b", "TOO"), plain("d", "new"), ONE)
    with Source(batch.path) as source, batch.open(source) as work:
        assert (work.journal.input_changed, work.num_done) == (True, 1)
    assert batch.run_again() == [["TOO", "new", "one"]]
    assert batch.said == [("c", ["THREE"]), ("b", ["TOO"]), ("d", ["NEW"]), ("a", ["ONE"])]


def test_results_of_another_model_are_not_mixed_in_nor_taken_for_this_ones(batch: Batch) -> None:
    batch.write(ONE, TWO).run_killed_at("one")
    with pytest.raises(UsageError, match="was begun with model = m, and this run has n"):
        batch.run(origin={"model": "n"})
    batch.run()
    with pytest.raises(UsageError, match="is not the result of this batch"):
        batch.run(origin={"model": "n"})


def test_the_journal_of_a_run_that_was_killed_at_its_very_end_is_dropped(batch: Batch) -> None:
    """The output was there, the journal still too."""
    with Source(batch.write(ONE).path) as source, batch.open(source) as work:
        work.run(as_llm(ShoutingLLM()), lambda outcome: None, template=None)
        journal = batch.journal.read_bytes()
        first = work.finish()
    batch.journal.write_bytes(journal)
    assert batch.run() == first
    assert not batch.journal.exists()


def test_a_finished_output_is_left_as_it_is(batch: Batch) -> None:
    first = batch.write(ONE, "{").run()
    before = batch.out.read_bytes()
    again = ShoutingLLM()
    assert batch.run(again) == first == Summary(1, 1, 3, 1, 1)
    assert (again.calls, batch.out.read_bytes()) == ([], before)
    assert not batch.journal.exists()


@pytest.mark.parametrize(
    "change",
    [lambda b: b.write(plain("a", "other")),
     lambda b: b.write(ONE, plain("b", "more")),
     lambda b: b.write(),
     lambda b: b.out.write_text(b.out.read_text() * 2),
     lambda b: b.out.write_text("notes\n"),
     lambda b: b.out.write_bytes(b"\xff"),
     lambda b: b.out.write_text("[]\n")],
)  # fmt: skip
def test_another_output_is_not_overwritten(batch: Batch, change: Callable[[Batch], Any]) -> None:
    batch.write(ONE).run()
    change(batch)
    before = batch.out.read_bytes()
    with pytest.raises(UsageError, match="is there and is not the result of this batch: move it"):
        batch.run()
    assert batch.out.read_bytes() == before
    assert not batch.journal.exists()


def test_an_empty_output_is_no_loss(batch: Batch) -> None:
    batch.out.touch()
    batch.write(ONE).run()
    assert batch.said == [("a", ["ONE"])]


def test_outputs_that_could_not_be_written_are_refused_at_once(batch: Batch) -> None:
    (batch.folder / "link").symlink_to(batch.write(ONE).path)
    for out, why in [
        ("in", "is the input: choose another output"),
        ("link", "is the input: choose another output"),
        (".", "is no plain file"),
        ("none/out", "is no folder: make it"),
    ]:
        batch.out = batch.folder / out
        with pytest.raises(UsageError, match=why):
            batch.run()


def test_a_full_disk_leaves_the_journal(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Path) -> None:
        raise OSError(28, "No space left on device")

    batch.write(ONE)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            batch.run()
    assert sorted(p.name for p in batch.folder.iterdir()) == ["in", "out.partial"]
    assert (batch.run_again(), batch.said) == ([], [("a", ["ONE"])])


def _without_times(found: list[Any]) -> str:
    for result in found:
        del result["response"]["body"]["created"]
    return json.dumps(found)
