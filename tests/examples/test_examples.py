"""The programs of examples/ run as they stand, and print what they promise to show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from octavo import LLM, SamplingParams

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
USAGE = re.compile(r"Usage\(prompt_tokens=(\d+), completion_tokens=(\d+), cached_tokens=(\d+)\)")


@pytest.fixture(scope="module")
def printed(smollm2_path: Path) -> dict[str, str]:
    """What each program prints for SmolLM2."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    found = {}
    for name in PROGRAMS:
        command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), str(smollm2_path)]
        done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=120)
        assert (done.returncode, done.stderr) == (0, ""), name
        found[name] = done.stdout
    return found


def cached_tokens(printed: str) -> list[int]:
    return [int(cached) for _, _, cached in USAGE.findall(printed)]


def test_each_program_is_tried_here() -> None:
    assert PROGRAMS == ["answer", "chats", "document"]


def test_the_answer_is_the_one_that_this_process_gets(
    printed: dict[str, str], smollm2_path: Path
) -> None:
    question = {"role": "user", "content": "Why is the sky blue?"}
    here = LLM(smollm2_path, threads=1, context=256).chat(
        [question], SamplingParams(temperature=0, max_tokens=24)
    )
    text, counts = printed["answer"].rsplit("\n", 2)[:2]
    assert text == here.outputs[0].text
    assert counts.startswith(f"{here.usage.prompt_tokens} prompt tokens, ")


def test_chats_compute_their_system_prompt_once(printed: dict[str, str]) -> None:
    first, *later = cached_tokens(printed["chats"])
    assert first == 0
    assert later == [22, 22]  # up to and with "What is", of 30


def test_questions_compute_their_document_once(printed: dict[str, str]) -> None:
    first, *others = sorted(cached_tokens(printed["document"]))  # which comes first is chance
    assert first == 0
    assert len(others) == 2
    assert min(others) >= 96  # three blocks; to the token where the other had ended
    assert "built in 1884" in printed["document"]
