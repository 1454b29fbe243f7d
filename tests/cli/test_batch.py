"""`octavo batch`: what it says, its exit codes, and that a stop loses nothing."""

from __future__ import annotations

import io
import json
import os
import re
import signal

import pytest
from rich.console import Console

from octavo.errors import KernelError
from tests.batch_job.lines import chat, plain, said, write
from tests.batch_job.shouting_llm import ShoutingLLM

FIGURES = re.compile(
    r"\[\d+ answered · \d+ failed · \d+ prompt tokens, \d+ cached · \d+ new"
    r" · [\d.]+ m?s\]\n"
)


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch) -> ShoutingLLM:
    """What any model is, here; `opened` has how it was loaded."""
    fake = ShoutingLLM()
    fake.opened = []

    def open_llm(model: str, engine: dict[str, object]) -> ShoutingLLM:
        fake.opened.append((model, engine))
        return fake

    monkeypatch.setattr("octavo.cli.batch.open_llm", open_llm)
    return fake


def test_every_line_has_its_result_and_the_figures_are_on_stderr(octavo, llm, files, tiny):
    arguments, out = files(plain("a", "one"), chat("b", "two"))
    result = octavo("batch", *arguments, "--model", tiny)
    assert (result.code, result.out) == (0, "")
    assert FIGURES.fullmatch(result.err)
    assert result.err.startswith("[2 answered · 0 failed · 6 prompt tokens, 2 cached · 2 new · ")
    assert said(out) == [("a", ["ONE"]), ("b", ["TWO"])]


def test_longest_prefix_first_unless_said(octavo, llm, files, tiny):
    arguments, _ = files(plain("a", "one"))
    octavo("batch", *arguments, "--model", tiny, "--kv-dtype", "f32")
    assert llm.opened == [(tiny, {"schedule": "longest-prefix", "kv_dtype": "f32"})]


def test_the_model_that_the_lines_name_is_run_and_told(octavo, llm, files, tiny):
    arguments, out = files(plain("a", "one", model=tiny))
    assert octavo("batch", *arguments).code == 0
    assert llm.opened[0][0] == tiny
    result = json.loads(out.read_text())
    assert result["response"]["body"]["model"] == tiny


def test_a_model_that_only_openai_has_is_refused_with_its_line(octavo, llm, files):
    arguments, out = files("", plain("a", "one", model="gpt-4o-mini"))
    result = octavo("batch", *arguments)
    assert result.code == 1
    assert result.err.startswith(
        f"octavo: line 2 of {arguments[0]} names model 'gpt-4o-mini': no file and no library model "
    )
    assert result.err.endswith("; or --model runs all lines\n")
    assert not out.exists()


def test_json_counts_what_is_in_out(octavo, llm, files, tiny):
    arguments, _ = files(plain("a", "one"), "{", plain("b", "x" * 41))
    result = octavo("batch", *arguments, "--model", tiny, "--json", "--stats")
    found = result.json
    assert result.out.count("\n") == 1
    assert found.pop("seconds") > 0
    assert found.pop("stats")["steps"] == 1
    assert found == {
        "input": arguments[0], "output": arguments[1], "model": tiny, "lines": 3,
        "succeeded": 1, "failed": 2, "prompt_tokens": 3, "cached_tokens": 1,
        "completion_tokens": 1, "done_before": 0,
    }  # fmt: skip


def test_bad_lines_are_said_with_their_number_and_the_exit_code_is_1(octavo, llm, files, tiny):
    arguments, out = files("{}", plain("a", "one"), plain("b", "x" * 41))
    result = octavo("batch", *arguments, "--model", tiny)
    assert result.code == 1
    assert result.err.splitlines()[:2] == [
        "line 1: custom_id: expected a string that is not empty",
        "line 3: the prompt has 41 tokens, the context 40",
    ]
    assert [custom_id for custom_id, _ in said(out)] == [None, "a", "b"]


def test_of_many_bad_lines_the_first_20_are_said(octavo, llm, files, tiny):
    arguments, out = files(*["{"] * 25)
    result = octavo("batch", *arguments, "--model", tiny)
    lines = result.err.splitlines()
    assert result.code == 1
    assert lines[19].startswith("line 20: not JSON")
    assert lines[20] == f"… and 5 more lines at fault: {out} will name each"
    assert len(lines) == 22
    assert llm.opened == []


@pytest.mark.parametrize(("lines", "code", "count"), [((), 0, 0), (("{",), 1, 1)])
def test_a_file_without_requests_needs_no_model(octavo, llm, files, lines, code, count):
    arguments, out = files(*lines)
    result = octavo("batch", *arguments, "--json")
    assert (result.code, result.json["model"], result.json["lines"]) == (code, None, count)
    assert len(out.read_text().splitlines()) == count
    assert llm.opened == []


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(octavo, llm, files, tiny):
    arguments, out = files(plain("a", "one"), plain("b", "two"), plain("c", "three"))

    def press(prompt: str) -> None:
        if prompt == "one":
            os.kill(os.getpid(), signal.SIGINT)

    llm.before = press
    result = octavo("batch", *arguments, "--model", tiny)
    assert (result.code, result.out) == (130, "")
    assert result.err == (
        f"stopped: 2 of 3 lines are done and kept in {out}.partial; the same command goes on from "
        "there\n"
    )
    assert not out.exists()
    llm.before = lambda prompt: None
    again = octavo("batch", *arguments, "--model", tiny, "--json")
    assert again.err.startswith("2 of 3 lines were done before\n[3 answered")
    assert re.search(r" · this run [\d.]+ m?s\]\n$", again.err)  # which answered one of them
    assert (again.code, again.json["succeeded"], again.json["done_before"]) == (0, 3, 2)
    assert llm.calls[1:] == [["one"]]


NOTHING_DONE = "stopped: no line is done yet; the same command begins again\n"
ALL_DONE = (
    "stopped: 2 of 2 lines are done and kept in {out}.partial; "
    "the same command goes on from there\n"
)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("octavo.cli.batch.pick_model", NOTHING_DONE),
        ("octavo.cli.batch.find_or_pull", NOTHING_DONE),
        ("octavo.cli.batch.open_llm", NOTHING_DONE),
        ("tests.batch_job.shouting_llm.ShoutingLLM.as_completed", NOTHING_DONE),
        ("octavo.batch_job.BatchJob.finish", ALL_DONE),
        ("octavo.atomic_file.sync_directory", ALL_DONE),
        ("octavo.batch_job.journal.Journal.remove", ALL_DONE),
    ],
)
def test_ctrl_c_says_how_to_go_on_wherever_it_comes(
    octavo, llm, files, tiny, monkeypatch, where, words
):
    def press(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    arguments, out = files(plain("a", "one"), plain("b", "two"))
    with monkeypatch.context() as patch:
        patch.setattr(where, press)
        result = octavo("batch", *arguments, "--model", tiny)
    assert (result.code, result.out, result.err) == (130, "", words.format(out=out))
    assert octavo("batch", *arguments, "--model", tiny).code == 0
    assert [custom_id for custom_id, _ in said(out)] == ["a", "b"]
    assert not out.with_name("out.jsonl.partial").exists()


def test_an_engine_that_breaks_keeps_what_is_done_too(octavo, llm, files, tiny):
    def fail(prompt: str) -> None:
        if prompt == "one":
            raise KernelError("the core broke")

    llm.before = fail
    arguments, out = files(plain("a", "one"), plain("b", "two"))
    result = octavo("batch", *arguments, "--model", tiny)
    assert result.code == 1
    assert result.err.splitlines()[0].startswith("stopped: 1 of 2 lines are done and kept in ")
    assert result.err.splitlines()[1] == "octavo: the core broke"
    assert out.with_name("out.jsonl.partial").exists()


def test_other_flags_that_change_answers_do_not_go_on_with_old_ones(octavo, llm, files, tiny):
    test_an_engine_that_breaks_keeps_what_is_done_too(octavo, llm, files, tiny)
    arguments, _ = files(plain("a", "one"), plain("b", "two"))
    llm.before = lambda prompt: None
    wrong = octavo("batch", *arguments, "--model", tiny, "--kv-dtype", "f32")
    assert wrong.code == 2
    assert "begun with kv_dtype = k=bf16,v=bf16, and this run has k=f32,v=f32:" in wrong.err
    arguments, _ = files(plain("b", "two"), plain("a", "one"))
    same = ["--threads", "1", "--kv-dtype", "v=bf16,k=bf16", "--activations", "int8"]
    right = octavo("batch", *arguments, "--model", tiny, *same)
    assert right.code == 0
    assert right.err.startswith(f"{arguments[0]} is not what it was when {arguments[1]}.partial")


def test_a_finished_out_is_told_and_left(octavo, llm, files, tiny):
    arguments, out = files(plain("a", "one"), "{")
    assert octavo("batch", *arguments, "--model", tiny).code == 1
    before = out.read_bytes()
    again = octavo("batch", *arguments, "--model", tiny, "--json")
    assert again.code == 1  # a line failed, whenever that was
    line = f"{out} has all results of {arguments[0]} already: nothing to do; 1 line failed\n"
    assert again.err == line  # and no figures, which were of another run
    assert (again.json["succeeded"], again.json["failed"], again.json["done_before"]) == (1, 1, 2)
    assert (out.read_bytes(), len(llm.opened)) == (before, 1)
    write(out, "precious")
    assert octavo("batch", *arguments, "--model", tiny).code == 2
    assert out.read_text() == "precious\n"


def test_a_template_is_part_of_what_answers_depend_on(octavo, llm, files, tiny, tmp_path):
    template = tmp_path / "t.jinja"
    template.write_text("x")
    llm.chat_template = None
    arguments, _ = files(chat("a", "one"))
    flags = ["--model", tiny]
    assert "--chat-template" in octavo("batch", *arguments, *flags).err
    assert octavo("batch", *arguments, *flags, "--chat-template", str(template)).code == 0
    template.write_text("y")
    other = octavo("batch", *arguments, *flags, "--chat-template", str(template))
    assert "is not the result of this batch" in other.err


def test_a_terminal_sees_a_bar_with_what_is_left(octavo, llm, files, tiny, monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    monkeypatch.setattr("rich.console.Console", lambda **_: console)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    arguments, _ = files(plain("a", "one"), plain("b", "x" * 41))
    octavo("batch", *arguments, "--model", tiny)
    shown = screen.getvalue()
    assert "requests" in shown
    assert "2/2" in shown
    assert "line 2: the prompt has 41 tokens" in shown
