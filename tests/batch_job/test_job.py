"""A batch from its file to its results: order, windows, refusals, kills and what goes on after."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from octavo import LLM
from octavo.batch_job import BatchJob, Outcome, Source, Summary, job, pick_model
from octavo.errors import UsageError
from octavo.request import RequestOptions
from octavo.sampling_params import SamplingParams
from tests.batch_job.lines import chat, plain, results, said, write
from tests.batch_job.shouting_llm import ShoutingLLM

ORIGIN = {"model": "m"}


class Killed(BaseException):
    """What no `except` of the run catches."""


def run(
    path: Path,
    out: Path,
    llm: ShoutingLLM | None = None,
    report: Callable[[Outcome], None] = lambda outcome: None,
    origin: dict[str, str] = ORIGIN,
) -> Summary:
    with Source(path) as source, BatchJob(source, out, model="m", origin=origin) as work:
        if work.finished is not None:
            return work.finished
        work.run(as_llm(llm or ShoutingLLM()), report, template=None)
        return work.finish()


def as_llm(llm: ShoutingLLM) -> LLM:
    return cast(LLM, llm)


def killed_at(prompt: str) -> Callable[[str], None]:
    def kill(text: str) -> None:
        if text == prompt:
            raise Killed

    return kill


def test_results_are_in_the_order_of_the_input_whatever_is_done_first(tmp_path: Path) -> None:
    path = write(tmp_path / "in", plain("a", "one"), chat("b", "zwölf"), plain("c", ["x", "y"]))
    seen: list[Outcome] = []
    summary = run(path, tmp_path / "out", report=seen.append)
    assert said(tmp_path / "out") == [("a", ["ONE"]), ("b", ["ZWÖLF"]), ("c", ["X", "Y"])]
    assert seen == [Outcome(3, "c", None), Outcome(2, "b", None), Outcome(1, "a", None)]
    assert summary == Summary(3, 0, prompt_tokens=3 + 5 + 2, cached_tokens=4, completion_tokens=4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


def test_a_result_line_is_openais(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octavo.batch_job.job.time.time", lambda: 17.9)
    run(write(tmp_path / "in", chat("a", "hi")), tmp_path / "out")
    (found,) = results(tmp_path / "out")
    line_id = found["id"].removeprefix("batch_req_")
    assert len(line_id) == 32
    assert found == {
        "id": f"batch_req_{line_id}",
        "custom_id": "a",
        "response": {
            "status_code": 200,
            "request_id": f"req_{line_id}",
            "body": {
                "id": f"chatcmpl-{line_id}",
                "object": "chat.completion",
                "created": 17,
                "model": "m",
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": "HI", "refusal": None},
                        "logprobs": None,
                        "finish_reason": "stop",
                    }
                ],
                "usage": {
                    "prompt_tokens": 2,
                    "completion_tokens": 1,
                    "total_tokens": 3,
                    "prompt_tokens_details": {"cached_tokens": 1},
                },
            },
        },
        "error": None,
    }


def test_a_line_is_a_line_for_every_reader(tmp_path: Path) -> None:
    prompt = "a\u2028b\x85c"  # str.splitlines would cut here
    run(write(tmp_path / "in", plain("ä\ud800".encode("utf-8", "replace").decode(), prompt)),
        tmp_path / "out")  # fmt: skip
    assert said(tmp_path / "out") == [("ä?", ["A\u2028B\x85C"])]


def test_half_a_surrogate_in_an_id_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_text(plain("ID", "x").replace("ID", "\\ud83d") + "\n")
    run(path, tmp_path / "out")
    assert said(tmp_path / "out") == [("\ud83d", ["X"])]


def test_parameters_and_options_are_each_requests_own(tmp_path: Path) -> None:
    llm = ShoutingLLM()
    path = write(
        tmp_path / "in",
        plain("a", "one", max_tokens=3, cache_salt="s"),
        plain("b", ["x", "y"], n=2, seed=5),
    )
    run(path, tmp_path / "out", llm)
    both = (SamplingParams(max_tokens=16, n=2, seed=5), RequestOptions())
    assert llm.given == [
        (SamplingParams(max_tokens=3), RequestOptions(cache_salt="s")), both, both,
    ]  # fmt: skip
    assert said(tmp_path / "out")[1] == ("b", ["X", "X", "Y", "Y"])


def test_bad_lines_have_their_error_and_stop_nobody(tmp_path: Path) -> None:
    path = write(
        tmp_path / "in", "{", plain("a", "one"), plain("b", "two", n=0), "", plain("a", "three")
    )
    summary = run(path, tmp_path / "out")
    assert (summary.succeeded, summary.failed) == (1, 3)
    assert said(tmp_path / "out") == [
        (None, "line 1: not JSON: Expecting property name enclosed in double quotes at "
         "character 3"),
        ("a", ["ONE"]),
        ("b", "line 3: n=0: expected a whole number from 1 to 64"),
        ("a", "line 5: custom_id 'a' is that of line 2: give each its own"),
    ]  # fmt: skip
    first, _, third, fourth = results(tmp_path / "out")
    assert (first["response"], first["error"]["code"]) == (None, "invalid_json")
    assert third["response"]["status_code"] == 400
    assert third["response"]["body"]["error"]["param"] == "n"
    assert (fourth["response"], fourth["error"]["code"]) == (None, "duplicate_custom_id")


def test_what_the_model_refuses_harms_no_other_line(tmp_path: Path) -> None:
    llm = ShoutingLLM(refuses="huge", breaks="cursed")
    seen: list[Outcome] = []
    path = write(
        tmp_path / "in",
        *(plain(f"{n}", f"p{n}") for n in range(5)),
        plain("r", ["fine", "huge"]),
        plain("l", "x" * 41),
        plain("c", ["cursed", "well"]),
    )
    run(path, tmp_path / "out", llm, seen.append)
    assert said(tmp_path / "out") == [
        *((f"{n}", [f"P{n}"]) for n in range(5)),
        ("r", "line 6: 'huge' can never fit"),
        ("l", "line 7: the prompt has 41 tokens, the context 40"),
        ("c", "line 8: the step failed"),
    ]
    statuses = [r["response"]["status_code"] for r in results(tmp_path / "out")]
    assert statuses == [200] * 5 + [400, 400, 500]
    assert results(tmp_path / "out")[6]["error"]["code"] == "context_length_exceeded"
    assert sorted(o.number for o in seen) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [o.error for o in seen if o.number == 8] == ["the step failed"]


def test_a_line_is_reported_once_however_many_of_its_prompts_are_refused(tmp_path: Path) -> None:
    seen: list[Outcome] = []
    path = write(tmp_path / "in", plain("a", ["huge", "huge"]))
    run(path, tmp_path / "out", ShoutingLLM(refuses="huge"), seen.append)
    assert seen == [Outcome(1, "a", "'huge' can never fit")]


def test_a_window_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "WINDOW", 2)
    llm = ShoutingLLM()
    run(write(tmp_path / "in", *(plain(f"{n}", f"{n}") for n in range(5))), tmp_path / "out", llm)
    assert llm.calls == [["0", "1"], ["2", "3"], ["4"]]


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


def test_no_template_is_said_before_anything_runs(tmp_path: Path) -> None:
    path = write(tmp_path / "in", plain("a", "one"), chat("b", "hi"))
    llm = ShoutingLLM(chat_template=None)
    with pytest.raises(UsageError, match="m has no chat template, and line 2 is a chat: give one"):
        run(path, tmp_path / "out", llm)
    assert llm.calls == []
    run(write(path, plain("a", "one")), tmp_path / "out", llm)
    assert said(tmp_path / "out") == [("a", ["ONE"])]


def test_the_model_is_the_one_that_is_given_or_that_all_lines_name(tmp_path: Path) -> None:
    one = plain("a", "x")
    cases: list[tuple[list[str], str | None, str | None]] = [
        ([one], None, "m"),
        ([one], "n", "n"),
        ([one, plain("b", "x", model=None)], None, "m"),
        ([], None, None),
        (["{"], None, None),
    ]
    for lines, given, picked in cases:
        with Source(write(tmp_path / "in", *lines)) as source:
            assert pick_model(source, given) == picked
    with Source(write(tmp_path / "in", one, one, plain("b", "x", model="n"))) as source:
        with pytest.raises(UsageError, match="names 'm' in line 1 and 'n' in line 3, and a run"):
            pick_model(source, None)
        assert pick_model(source, "o") == "o"
    with (
        Source(write(tmp_path / "in", plain("b", "x", model=None))) as source,
        pytest.raises(UsageError, match=r"no line of .* names a model: give --model"),
    ):
        pick_model(source, None)


def _without_times(found: list[dict[str, Any]]) -> str:
    for result in found:
        del result["response"]["body"]["created"]
    return json.dumps(found)
