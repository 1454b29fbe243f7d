"""`octavo batch` on a real engine: killed and run again, and the answers that others give."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.batch_job.lines import chat, plain, results, said

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


def test_killed_on_a_real_engine_it_goes_on_to_what_an_undisturbed_run_gives(
    octavo, files, tiny, tmp_path
):
    shape = {"max_tokens": 6, "seed": 5, "logprobs": 1, "n": 2}
    arguments, out = files(*(plain(f"{n}", f"{n} apples", **shape) for n in range(5)))
    command = ["batch", *arguments, "--model", tiny, "--threads", "1"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    killed = subprocess.run([sys.executable, "-c", DIES_AT_THE_THIRD, *command], env=env)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    again = octavo(*command, "--json").json
    assert (again["done_before"], again["succeeded"], again["failed"]) == (3, 5, 0)
    whole = tmp_path / "whole.jsonl"
    octavo("batch", arguments[0], str(whole), "--model", tiny, "--threads", "1")

    def answers(path: Path) -> list[object]:
        bodies = [result["response"]["body"] for result in results(path)]
        return [(body["id"], body["choices"]) for body in bodies]

    assert answers(out) == answers(whole)


def test_an_answer_is_the_one_that_run_gives(octavo, files, tiny):
    arguments, out = files(chat("a", "hello", temperature=0, max_tokens=8))
    octavo("batch", *arguments, "--model", tiny)
    alone = octavo("run", tiny, "hello", "--temperature", "0", "--max-tokens", "8", "--json").json
    assert said(out) == [("a", [alone["outputs"][0]["text"]])]


def test_a_prompt_is_scored_with_the_usual_request_of_evaluations(octavo, files, tiny):
    """It draws no tokens, or one, as clients ask that know servers which always draw."""
    scored = {"echo": True, "logprobs": 1, "temperature": 0}
    arguments, out = files(
        plain("a", "one apple", max_tokens=0, **scored),
        plain("b", "one apple", max_tokens=1, **scored),
    )
    assert octavo("batch", *arguments, "--model", tiny).code == 0
    none, one = (result["response"]["body"] for result in results(out))
    (first,), (second,) = none["choices"], one["choices"]
    assert first["text"] == "one apple"
    assert len(first["logprobs"]["tokens"]) == 9
    for name, values in first["logprobs"].items():
        assert values == second["logprobs"][name][:-1]
    assert (none["usage"]["completion_tokens"], one["usage"]["completion_tokens"]) == (0, 1)
    assert first["finish_reason"] == "length"
