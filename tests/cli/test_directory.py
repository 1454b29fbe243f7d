"""A model directory in the place of a file: every verb takes it, and says the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.batch_job.lines import chat, plain, said
from tests.cli.result import BatchFiles, Octavo, refused
from tests.cli.tiny_model import TINY
from tests.weights.hf.written import changed, directory_of

GREEDY = ("--temperature", "0", "--max-tokens", "12", "--threads", "1")


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(directory_of(Path(TINY), tmp_path / "tiny"))


def test_run_and_chat_answer_as_they_do_with_the_file(octavo: Octavo, folder: str) -> None:
    for raw in ([], ["--raw"]):
        out = [octavo("run", model, "hello", *GREEDY, *raw).out for model in (TINY, folder)]
        assert out[0] == out[1] != ""
    turns = [octavo("chat", model, *GREEDY, stdin="hello\n").out for model in (TINY, folder)]
    assert turns[0] == turns[1] != ""


@pytest.mark.parametrize("weights", ["w8", "w4"])
def test_weights_are_quantised_the_same_from_either(
    octavo: Octavo, folder: str, weights: str
) -> None:
    flags = (*GREEDY, "--raw", "--weights", weights)
    out = [octavo("run", model, "hello", *flags).out for model in (TINY, folder)]
    assert out[0] == out[1] != ""


def test_plan_and_explain_see_the_same_program(octavo: Octavo, folder: str) -> None:
    for verb in ("plan", "explain"):
        found = [octavo(verb, model, "--json").json for model in (TINY, folder)]
        for each in found:
            each.pop("model")
        assert found[0] == found[1]


def test_inspect_shows_the_facts_and_what_was_assumed(octavo: Octavo, folder: str) -> None:
    shown = octavo("inspect", folder).out
    of_file = octavo("inspect", TINY).out.splitlines()
    assert [line for line in of_file if line not in shown.splitlines()] == of_file[:2]
    changed(Path(folder), "config.json", rms_norm_eps=...)
    assert "assumed       rms_norm_eps 1e-06\n" in octavo("inspect", folder).out
    changed(Path(folder), "config.json", logits_scaling=2)
    assert (
        "runs          not supported: config.json: logits_scaling is 2: Octavo does not know"
        in (octavo("inspect", folder).out)
    )


def test_a_batch_runs_on_a_directory(batch: BatchFiles, folder: str) -> None:
    assert batch.write(plain("a", "one"), chat("b", "two")).run(model=folder).code == 0
    assert [name for name, _ in said(batch.out)] == ["a", "b"]


def test_a_folder_that_is_no_model_is_refused(octavo: Octavo, tmp_path: Path) -> None:
    why = f"{tmp_path} has no config.json: give a model directory in Hugging Face's layout, or "
    assert octavo("run", str(tmp_path), "hello") == refused(f"{why}the path of a GGUF file", 1)
