"""A batch from its file to its results: their order, the windows, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo.batch_job import Outcome, Source, Summary, job, pick_model
from octavo.errors import UsageError
from octavo.request import RequestOptions
from octavo.sampling_params import SamplingParams
from tests.batch_job.lines import chat, plain, results, write
from tests.batch_job.running import Batch
from tests.batch_job.shouting_llm import ShoutingLLM


def test_results_are_in_the_order_of_the_input_whatever_is_done_first(batch: Batch) -> None:
    batch.write(plain("a", "one"), chat("b", "zwölf"), plain("c", ["x", "y"]))
    seen: list[Outcome] = []
    summary = batch.run(report=seen.append)
    assert batch.said == [("a", ["ONE"]), ("b", ["ZWÖLF"]), ("c", ["X", "Y"])]
    assert seen == [Outcome(3, "c", None), Outcome(2, "b", None), Outcome(1, "a", None)]
    assert summary == Summary(3, 0, prompt_tokens=3 + 5 + 2, cached_tokens=4, completion_tokens=4)
    assert sorted(p.name for p in batch.folder.iterdir()) == ["in", "out"]


def test_a_result_line_is_openais(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octavo.batch_job.job.time.time", lambda: 17.9)
    batch.write(chat("a", "hi")).run()
    (found,) = results(batch.out)
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
                "choices": [{
                    "index": 0, "logprobs": None, "finish_reason": "stop",
                    "message": {"role": "assistant", "content": "HI", "refusal": None},
                }],
                "usage": {
                    "prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3,
                    "prompt_tokens_details": {"cached_tokens": 1},
                    "completion_tokens_details": {"reasoning_tokens": 0},
                },
            },
        },
        "error": None,
    }  # fmt: skip


def test_a_line_is_a_line_for_every_reader_and_half_a_surrogate_itself(batch: Batch) -> None:
    prompt = "a\u2028b\x85c"  # str.splitlines would cut here
    broken = plain("ID", "x").replace("ID", "\\ud83d")
    batch.write(plain("ä\ud800".encode("utf-8", "replace").decode(), prompt), broken).run()
    assert batch.said == [("ä?", ["A\u2028B\x85C"]), ("\ud83d", ["X"])]


def test_parameters_and_options_are_each_requests_own(batch: Batch) -> None:
    llm, one = ShoutingLLM(), plain("a", "one", max_tokens=3, cache_salt="s")
    batch.write(one, plain("b", ["x", "y"], n=2, seed=5)).run(llm)
    first = (SamplingParams(max_tokens=3), RequestOptions(cache_salt="s"))
    both = (SamplingParams(max_tokens=16, n=2, seed=5), RequestOptions())
    assert llm.given == [first, both, both]
    assert batch.said[1] == ("b", ["X", "X", "Y", "Y"])


def test_bad_lines_have_their_error_and_stop_nobody(batch: Batch) -> None:
    batch.write("{", plain("a", "one"), plain("b", "two", n=0), "", plain("a", "three"))
    summary = batch.run()
    assert (summary.succeeded, summary.failed) == (1, 3)
    assert batch.said == [
        (None, "line 1: not JSON: Expecting property name enclosed in double quotes at "
         "character 3"),
        ("a", ["ONE"]),
        ("b", "line 3: n=0: expected a whole number from 1 to 16"),
        ("a", "line 5: custom_id 'a' is that of line 2: give each its own"),
    ]  # fmt: skip
    first, _, third, fourth = results(batch.out)
    assert (first["response"], first["error"]["code"]) == (None, "invalid_json")
    assert third["response"]["status_code"] == 400
    assert third["response"]["body"]["error"]["param"] == "n"
    assert (fourth["response"], fourth["error"]["code"]) == (None, "duplicate_custom_id")


def test_what_the_model_refuses_harms_no_other_line(batch: Batch) -> None:
    wrong = [plain("r", ["fine", "huge"]), plain("l", "x" * 41), plain("c", ["cursed", "well"])]
    batch.write(*(plain(f"{n}", f"p{n}") for n in range(5)), *wrong)
    seen: list[Outcome] = []
    batch.run(ShoutingLLM(refuses="huge", breaks="cursed"), seen.append)
    assert batch.said == [
        *((f"{n}", [f"P{n}"]) for n in range(5)),
        ("r", "line 6: 'huge' can never fit"),
        ("l", "line 7: the prompt has 41 tokens, the context 40"),
        ("c", "line 8: the step failed"),
    ]
    found = results(batch.out)
    assert [r["response"]["status_code"] for r in found] == [200] * 5 + [400, 400, 500]
    assert found[6]["error"]["code"] == "context_length_exceeded"
    assert sorted(o.number for o in seen) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [o.error for o in seen if o.number == 8] == ["the step failed"]


def test_a_line_is_reported_once_however_many_of_its_prompts_are_refused(batch: Batch) -> None:
    seen: list[Outcome] = []
    batch.write(plain("a", ["huge", "huge"])).run(ShoutingLLM(refuses="huge"), seen.append)
    assert seen == [Outcome(1, "a", "'huge' can never fit")]


def test_a_window_at_a_time(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "WINDOW", 2)
    llm = ShoutingLLM()
    batch.write(*(plain(f"{n}", f"{n}") for n in range(5))).run(llm)
    assert llm.calls == [["0", "1"], ["2", "3"], ["4"]]


def test_no_template_is_said_before_anything_runs(batch: Batch) -> None:
    batch.write(plain("a", "one"), chat("b", "hi"))
    llm = ShoutingLLM(chat_template=None)
    with pytest.raises(UsageError, match="m has no chat template, and line 2 is a chat: give one"):
        batch.run(llm)
    assert llm.calls == []
    batch.write(plain("a", "one")).run(llm)
    assert batch.said == [("a", ["ONE"])]


def test_the_model_is_the_one_that_is_given_or_that_all_lines_name(tmp_path: Path) -> None:
    def picked(given: str | None, *lines: str) -> str | None:
        with Source(write(tmp_path / "in", *lines)) as source:
            return pick_model(source, given)

    one, other, nameless = plain("a", "x"), plain("b", "x", model="n"), plain("b", "x", model=None)
    assert picked(None, one) == picked(None, one, nameless) == "m"
    assert picked("n", one) == "n"
    assert picked(None) is picked(None, "{") is None
    with pytest.raises(UsageError, match="names 'm' in line 1 and 'n' in line 3, and a run"):
        picked(None, one, one, other)
    assert picked("o", one, one, other) == "o"
    with pytest.raises(UsageError, match=r"no line of .* names a model: give --model"):
        picked(None, nameless)
