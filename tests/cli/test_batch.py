"""`octavo batch`: what it says, its exit codes, and that a stop loses nothing."""

from __future__ import annotations

import io
import os
import re
import signal
from collections.abc import Callable

import pytest
from rich.console import Console

from octavo.errors import KernelError
from tests.batch_job.lines import chat, plain, results, said, write
from tests.batch_job.shouting_llm import ShoutingLLM, say_nothing
from tests.cli.result import BatchFiles, Result
from tests.cli.tiny_model import TINY

FIGURES = re.compile(
    r"\[\d+ answered · \d+ failed · \d+ prompt tokens, \d+ cached · \d+ new"
    r" · [\d.]+ m?s\]\n"
)


@pytest.fixture(autouse=True)
def llm(monkeypatch: pytest.MonkeyPatch) -> ShoutingLLM:
    """What any model is, here."""
    fake = ShoutingLLM()
    monkeypatch.setattr("octavo.cli.batch.open_llm", fake.open)
    return fake


def at_one(act: Callable[[], object]) -> Callable[[str], None]:
    """For what runs before each answer."""

    def before(prompt: str) -> None:
        if prompt == "one":
            act()

    return before


def test_every_line_has_its_result_and_the_figures_are_on_stderr(batch: BatchFiles) -> None:
    result = batch.write(plain("a", "one"), chat("b", "two")).run()
    assert (result.code, result.out) == (0, "")
    assert FIGURES.fullmatch(result.err)
    assert result.err.startswith("[2 answered · 0 failed · 6 prompt tokens, 2 cached · 2 new · ")
    assert said(batch.out) == [("a", ["ONE"]), ("b", ["TWO"])]


def test_the_model_that_the_lines_name_is_run_and_told_and_longest_prefix_is_first_unless_said(
    batch: BatchFiles, llm: ShoutingLLM
) -> None:
    assert batch.write(plain("a", "one", model=TINY)).run("--kv-dtype", "f32", model=None).code == 0
    assert llm.opened == [(TINY, {"schedule": "longest-prefix", "kv_dtype": "f32"})]
    (result,) = results(batch.out)
    assert result["response"]["body"]["model"] == TINY


def test_a_model_that_only_openai_has_is_refused_with_its_line(batch: BatchFiles) -> None:
    result = batch.write("", plain("a", "one", model="gpt-4o-mini")).run(model=None)
    assert result.code == 1
    why = "names model 'gpt-4o-mini': no file and no library model "
    assert result.err.startswith(f"octavo: line 2 of {batch.source} {why}")
    assert result.err.endswith("; or --model runs all lines\n")
    assert not batch.out.exists()


def test_json_counts_what_is_in_out(batch: BatchFiles) -> None:
    batch.write(plain("a", "one"), "{", plain("b", "x" * 41))
    result = batch.run("--json", "--stats")
    found = result.json
    assert result.out.count("\n") == 1
    assert found.pop("seconds") > 0
    assert found.pop("stats")["steps"] == 1
    assert found == {
        "input": str(batch.source), "output": str(batch.out), "model": TINY, "lines": 3,
        "succeeded": 1, "failed": 2, "prompt_tokens": 3, "cached_tokens": 1,
        "completion_tokens": 1, "done_before": 0,
    }  # fmt: skip


def test_bad_lines_are_said_with_their_number_and_the_exit_code_is_1(batch: BatchFiles) -> None:
    result = batch.write("{}", plain("a", "one"), plain("b", "x" * 41)).run()
    assert result.code == 1
    assert result.err.splitlines()[:2] == [
        "line 1: custom_id: expected a string that is not empty",
        "line 3: the prompt has 41 tokens, the context 40",
    ]
    assert [custom_id for custom_id, _ in said(batch.out)] == [None, "a", "b"]


def test_of_many_bad_lines_the_first_20_are_said(batch: BatchFiles, llm: ShoutingLLM) -> None:
    result = batch.write(*["{"] * 25).run()
    lines = result.err.splitlines()
    assert (result.code, len(lines), llm.opened) == (1, 22, [])
    assert lines[19].startswith("line 20: not JSON")
    assert lines[20] == f"… and 5 more lines at fault: {batch.out} will name each"


@pytest.mark.parametrize(("lines", "code"), [((), 0), (("{",), 1)])
def test_a_file_without_requests_needs_no_model(
    batch: BatchFiles, llm: ShoutingLLM, lines: tuple[str, ...], code: int
) -> None:
    result = batch.write(*lines).run("--json", model=None)
    assert (result.code, result.json["model"], result.json["lines"]) == (code, None, len(lines))
    assert len(results(batch.out)) == len(lines)
    assert llm.opened == []


def test_ctrl_c_keeps_what_is_done_and_it_can_go_on(batch: BatchFiles, llm: ShoutingLLM) -> None:
    batch.write(plain("a", "one"), plain("b", "two"), plain("c", "three"))
    llm.before = at_one(lambda: os.kill(os.getpid(), signal.SIGINT))
    assert batch.run() == Result(130, "", f"stopped: 2 of 3 {KEPT.format(out=batch.out)}")
    assert not batch.out.exists()
    llm.before = say_nothing
    again = batch.run("--json")
    assert again.err.startswith("2 of 3 lines were done before\n[3 answered")
    assert re.search(r" · this run [\d.]+ m?s\]\n$", again.err)  # which answered one of them
    assert (again.code, again.json["succeeded"], again.json["done_before"]) == (0, 3, 2)
    assert llm.calls[1:] == [["one"]]


NOTHING_DONE = "stopped: no line is done yet; the same command begins again\n"
KEPT = "lines are done and kept in {out}.partial; the same command goes on from there\n"
ALL_DONE = f"stopped: 2 of 2 {KEPT}"


@pytest.mark.parametrize(
    ("where", "words"),
    [("octavo.cli.batch.pick_model", NOTHING_DONE),
     ("octavo.cli.batch.find_or_pull", NOTHING_DONE),
     ("octavo.cli.batch.open_llm", NOTHING_DONE),
     ("tests.batch_job.shouting_llm.ShoutingLLM.as_completed", NOTHING_DONE),
     ("octavo.batch_job.BatchJob.finish", ALL_DONE),
     ("octavo.atomic_file.sync_directory", ALL_DONE),
     ("octavo.batch_job.journal.Journal.remove", ALL_DONE)],
)  # fmt: skip
def test_ctrl_c_says_how_to_go_on_wherever_it_comes(
    batch: BatchFiles, monkeypatch: pytest.MonkeyPatch, where: str, words: str
) -> None:
    def press(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    batch.write(plain("a", "one"), plain("b", "two"))
    with monkeypatch.context() as patch:
        patch.setattr(where, press)
        assert batch.run() == Result(130, "", words.format(out=batch.out))
    assert batch.run().code == 0
    assert [custom_id for custom_id, _ in said(batch.out)] == ["a", "b"]
    assert not batch.out.with_name("out.jsonl.partial").exists()


def test_an_engine_that_breaks_keeps_what_is_done(batch: BatchFiles, llm: ShoutingLLM) -> None:
    def fail() -> None:
        raise KernelError("the core broke")

    llm.before = at_one(fail)
    result = batch.write(plain("a", "one"), plain("b", "two")).run()
    assert result.code == 1
    assert result.err.splitlines()[0].startswith("stopped: 1 of 2 lines are done and kept in ")
    assert result.err.splitlines()[1] == "octavo: the core broke"
    assert batch.out.with_name("out.jsonl.partial").exists()
    llm.before = say_nothing
    wrong = batch.run("--kv-dtype", "f32")  # changes answers
    assert wrong.code == 2
    assert "begun with kv_dtype = k=bf16,v=bf16, and this run has k=f32,v=f32:" in wrong.err
    batch.write(plain("b", "two"), plain("a", "one"))
    right = batch.run("--threads", "1", "--kv-dtype", "v=bf16,k=bf16", "--activations", "int8")
    assert right.code == 0
    assert right.err.startswith(f"{batch.source} is not what it was when {batch.out}.partial")


def test_a_finished_out_is_told_and_left(batch: BatchFiles, llm: ShoutingLLM) -> None:
    assert batch.write(plain("a", "one"), "{").run().code == 1
    before = batch.out.read_bytes()
    again = batch.run("--json")
    assert again.code == 1  # a line failed, whenever that was
    line = f"{batch.out} has all results of {batch.source} already: nothing to do; 1 line failed\n"
    assert again.err == line  # and no figures, which were of another run
    assert (again.json["succeeded"], again.json["failed"], again.json["done_before"]) == (1, 1, 2)
    assert (batch.out.read_bytes(), len(llm.opened)) == (before, 1)
    write(batch.out, "precious")
    assert batch.run().code == 2
    assert batch.out.read_text() == "precious\n"


def test_a_template_is_part_of_what_answers_depend_on(batch: BatchFiles, llm: ShoutingLLM) -> None:
    template = write(batch.source.with_name("t.jinja"), "x")
    llm.chat_template = None
    batch.write(chat("a", "one"))
    assert "--chat-template" in batch.run().err
    assert batch.run("--chat-template", str(template)).code == 0
    write(template, "y")
    assert "is not the result of this batch" in batch.run("--chat-template", str(template)).err


def test_on_a_terminal_a_bar_is_shown(batch: BatchFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    monkeypatch.setattr("rich.console.Console", lambda **_: console)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    batch.write(plain("a", "one"), plain("b", "x" * 41)).run()
    shown = screen.getvalue()
    for words in ("requests", "2/2", "line 2: the prompt has 41 tokens"):
        assert words in shown
