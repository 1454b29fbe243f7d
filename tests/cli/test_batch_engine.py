"""`octavo batch` on a real engine: killed and run again, and the answers that others give."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.batch_job.lines import chat, plain, results, said
from tests.cli.process import run_python
from tests.cli.result import GREEDY, BatchFiles
from tests.cli.tiny_model import TINY

DIES_AT_THE_THIRD = """
import os, signal, sys
from octavo.batch_job.journal import Journal
from octavo.cli.app import run
add = Journal.add
def add_and_die(self, key, result):
    add(self, key, result)
    if len(self) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
Journal.add = add_and_die
run(sys.argv[1:])
"""


def bodies(path: Path) -> list[dict[str, Any]]:
    return [result["response"]["body"] for result in results(path)]


def test_killed_on_a_real_engine_it_goes_on_to_what_an_undisturbed_run_gives(
    batch: BatchFiles, tmp_path: Path
) -> None:
    shape = {"max_tokens": 6, "seed": 5, "logprobs": 1, "n": 2}
    batch.write(*(plain(f"{n}", f"{n} apples", **shape) for n in range(5)))
    command = ["batch", str(batch.source), str(batch.out), "--model", TINY, "--threads", "1"]
    assert run_python(DIES_AT_THE_THIRD, *command).code == -signal.SIGKILL
    assert not batch.out.exists()
    again = batch.run("--threads", "1", "--json").json
    assert (again["done_before"], again["succeeded"], again["failed"]) == (3, 5, 0)
    whole = replace(batch, out=tmp_path / "whole.jsonl")
    whole.run("--threads", "1")
    first, second = ([(b["id"], b["choices"]) for b in bodies(each.out)] for each in (batch, whole))
    assert first == second


def test_an_answer_is_the_one_that_run_gives(batch: BatchFiles) -> None:
    batch.write(chat("a", "hello", temperature=0, max_tokens=8)).run()
    alone = batch.octavo("run", TINY, "hello", *GREEDY, "--json").json
    assert said(batch.out) == [("a", [alone["outputs"][0]["text"]])]


def test_a_prompt_is_scored_with_the_usual_request_of_evaluations(batch: BatchFiles) -> None:
    """It draws no tokens, or one, as clients ask that know servers which always draw."""
    scored = {"echo": True, "logprobs": 1, "temperature": 0}
    batch.write(*(plain(f"{n}", "one apple", max_tokens=n, **scored) for n in (0, 1)))
    assert batch.run().code == 0
    none, one = bodies(batch.out)
    (first,), (second,) = none["choices"], one["choices"]
    assert first["text"] == "one apple"
    assert len(first["logprobs"]["tokens"]) == 9
    for name, values in first["logprobs"].items():
        assert values == second["logprobs"][name][:-1]
    assert (none["usage"]["completion_tokens"], one["usage"]["completion_tokens"]) == (0, 1)
    assert first["finish_reason"] == "length"
