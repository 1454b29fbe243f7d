"""A batch from its file to its results: their order, the windows, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo.batch_job import Outcome, Source, Summary, job, pick_model
from octavo.errors import UsageError
from octavo.request import RequestOptions
from octavo.sampling_params import SamplingParams
from tests.batch_job.lines import chat, plain, results, said, write
from tests.batch_job.running import run
from tests.batch_job.shouting_llm import ShoutingLLM


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
