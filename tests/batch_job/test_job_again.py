"""A batch that is run again: after a kill, over an output, with another input or model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from octavo.batch_job import BatchJob, Source, Summary, job
from octavo.errors import UsageError
from tests.batch_job.lines import plain, results, said, write
from tests.batch_job.running import ORIGIN, Killed, as_llm, killed_at, run
from tests.batch_job.shouting_llm import ShoutingLLM


def test_killed_and_run_again_nothing_is_done_twice(tmp_path: Path) -> None:
    path = write(tmp_path / "in", *(plain(f"{n}", f"p{n}") for n in range(4)))
    out = tmp_path / "out"
    with pytest.raises(Killed):
        run(path, out, ShoutingLLM(before=killed_at("p1")))
    assert not out.exists()
    again = ShoutingLLM()
    summary = run(path, out, again)
    assert again.calls == [["p0", "p1"]]
    assert summary == Summary(4, 0, prompt_tokens=8, cached_tokens=4, completion_tokens=4)
    assert said(out) == [(f"{n}", [f"P{n}"]) for n in range(4)]
    whole = tmp_path / "whole"
    run(path, whole)
    assert _without_times(results(out)) == _without_times(results(whole))


def test_a_torn_end_costs_only_the_result_that_was_torn(tmp_path: Path) -> None:
    path = write(tmp_path / "in", *(plain(f"{n}", f"p{n}") for n in range(4)))
    with pytest.raises(Killed):
        run(path, tmp_path / "out", ShoutingLLM(before=killed_at("p0")))
    journal = tmp_path / "out.partial"
    journal.write_bytes(journal.read_bytes()[:-5])
    again = ShoutingLLM()
    run(path, tmp_path / "out", again)
    assert again.calls == [["p0", "p1"]]
    assert [ids for ids, _ in said(tmp_path / "out")] == ["0", "1", "2", "3"]


def test_refused_requests_are_tried_again_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "WINDOW", 1)
    path = write(tmp_path / "in", plain("a", "one"), plain("b", "two"))
    with pytest.raises(Killed):
        run(path, tmp_path / "out", ShoutingLLM(breaks="one", before=killed_at("two")))
    again = ShoutingLLM()
    run(path, tmp_path / "out", again)
    assert again.calls == [["one"], ["two"]]
    assert said(tmp_path / "out") == [("a", ["ONE"]), ("b", ["TWO"])]


def test_what_still_stands_in_a_changed_input_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "in", plain("a", "one"), plain("b", "two"), plain("c", "three"))
    with pytest.raises(Killed):
        run(path, tmp_path / "out", ShoutingLLM(before=killed_at("one")))
    write(path, plain("c", "three"), plain("b", "TOO"), plain("d", "new"), plain("a", "one"))
    again = ShoutingLLM()
    with Source(path) as source, BatchJob(source, tmp_path / "out", model="m", origin=ORIGIN) as w:
        assert (w.journal.input_changed, w.num_done) == (True, 1)
    run(path, tmp_path / "out", again)
    assert again.calls == [["TOO", "new", "one"]]
    assert said(tmp_path / "out") == [
        ("c", ["THREE"]), ("b", ["TOO"]), ("d", ["NEW"]), ("a", ["ONE"]),
    ]  # fmt: skip


def test_results_of_another_model_are_not_mixed_in(tmp_path: Path) -> None:
    path = write(tmp_path / "in", plain("a", "one"), plain("b", "two"))
    with pytest.raises(Killed):
        run(path, tmp_path / "out", ShoutingLLM(before=killed_at("one")))
    with pytest.raises(UsageError, match="was begun with model = m, and this run has n"):
        run(path, tmp_path / "out", origin={"model": "n"})


def test_a_finished_output_of_another_model_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "in", plain("a", "one"))
    run(path, tmp_path / "out")
    with pytest.raises(UsageError, match="is not the result of this batch"):
        run(path, tmp_path / "out", origin={"model": "n"})


def test_the_journal_of_a_run_that_was_killed_at_its_very_end_is_dropped(tmp_path: Path) -> None:
    """The output was there, the journal still too."""
    path = write(tmp_path / "in", plain("a", "one"))
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    with Source(path) as source, BatchJob(source, out, model="m", origin=ORIGIN) as work:
        work.run(as_llm(ShoutingLLM()), lambda outcome: None, template=None)
        journal = partial.read_bytes()
        first = work.finish()
    partial.write_bytes(journal)
    assert run(path, out) == first
    assert not partial.exists()


def test_a_finished_output_is_left_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "in", plain("a", "one"), "{")
    out = tmp_path / "out"
    first = run(path, out)
    before = out.read_bytes()
    again = ShoutingLLM()
    assert run(path, out, again) == first == Summary(1, 1, 3, 1, 1)
    assert (again.calls, out.read_bytes()) == ([], before)
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize(
    "change",
    [lambda p, o: write(p, plain("a", "other")),
     lambda p, o: write(p, plain("a", "one"), plain("b", "more")),
     lambda p, o: p.write_text(""),
     lambda p, o: o.write_text(o.read_text() * 2),
     lambda p, o: o.write_text("notes\n"),
     lambda p, o: o.write_bytes(b"\xff"),
     lambda p, o: o.write_text("[]\n")],
)  # fmt: skip
def test_an_output_that_is_something_else_is_not_overwritten(
    tmp_path: Path, change: Callable[..., Any]
) -> None:
    path, out = write(tmp_path / "in", plain("a", "one")), tmp_path / "out"
    run(path, out)
    change(path, out)
    before = out.read_bytes()
    with pytest.raises(UsageError, match="is there and is not the result of this batch: move it"):
        run(path, out)
    assert out.read_bytes() == before
    assert not (tmp_path / "out.partial").exists()


def test_an_empty_output_is_no_loss(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    run(write(tmp_path / "in", plain("a", "one")), tmp_path / "out")
    assert said(tmp_path / "out") == [("a", ["ONE"])]


def test_outputs_that_could_not_be_written_are_refused_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "in", plain("a", "one"))
    (tmp_path / "link").symlink_to(path)
    for out, why in [
        (path, "is the input: choose another output"),
        (tmp_path / "link", "is the input: choose another output"),
        (tmp_path, "is no plain file"),
        (tmp_path / "none" / "out", "is no folder: make it"),
    ]:
        with pytest.raises(UsageError, match=why):
            run(path, out)


def test_a_disk_that_fills_at_the_end_leaves_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "in", plain("a", "one"))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: full(0))
        with pytest.raises(OSError, match="No space left"):
            run(path, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out.partial"]
    again = ShoutingLLM()
    run(path, tmp_path / "out", again)
    assert (again.calls, said(tmp_path / "out")) == ([], [("a", ["ONE"])])


def _without_times(found: list[dict[str, Any]]) -> str:
    for result in found:
        del result["response"]["body"]["created"]
    return json.dumps(found)
