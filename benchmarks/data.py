"""Public lengths and texts as the benchmarks read them: a folder of files in, plain lists out.

Knows file formats. Knows no tokens and no engine.
"""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

BBH_TASKS = (
    *("date_understanding", "movie_recommendation", "object_counting", "snarks"),
    "sports_understanding",
)


class Lengths(NamedTuple):
    """The lengths of one request, in tokens."""

    prompt: int
    answer: int


@dataclass(frozen=True, slots=True)
class Turn:
    """What a user said, and what was answered; "" if the data have no answer."""

    user: str
    answer: str


def folder() -> Path | None:
    """The folder that the environment's OCTAVO_DATA names; None if it names none."""
    named = os.environ.get("OCTAVO_DATA")
    return Path(named) if named else None


def azure_lengths(folder: Path, name: str) -> list[Lengths]:
    """Read the lengths of a trace in order of arrival. `name`: conv or code."""
    with (folder / "traces" / f"azure2023_{name}.part1.csv").open(newline="") as file:
        rows = csv.DictReader(file)
        return [Lengths(int(r["ContextTokens"]), int(r["GeneratedTokens"])) for r in rows]


def scaled(lengths: list[Lengths], *, prompt: float, answer: float) -> list[Lengths]:
    """The same mix with other means: at least 1 prompt token, and 2 of an answer."""
    prompts = prompt * len(lengths) / sum(each.prompt for each in lengths)
    answers = answer * len(lengths) / sum(each.answer for each in lengths)
    return [
        Lengths(max(1, round(each.prompt * prompts)), max(2, round(each.answer * answers)))
        for each in lengths
    ]


def bbh_prompts(folder: Path) -> list[str]:
    """Every question of every task after its three worked examples."""
    prompts = []
    for task in BBH_TASKS:
        # The file begins with a note to those who crawl it, and a line of dashes.
        text = (folder / "questions" / "bbh" / f"{task}.cot.txt").read_text(encoding="utf-8")
        shots = text.split("\n-----\n", 1)[1]
        questions = json.loads((folder / "questions" / "bbh" / f"{task}.json").read_text("utf-8"))
        prompts += [
            f"{shots}\n\nQ: {example['input']}\nA: Let's think step by step."
            for example in questions["examples"]
        ]
    return prompts


def mt_bench(folder: Path) -> list[list[Turn]]:
    """Two turns a question, with the reference answers where there are some."""
    answers = {
        each["question_id"]: each["choices"][0]["turns"]
        for each in _lines(folder / "questions" / "mt_bench_reference_answers.part1.jsonl")
    }
    return [
        [
            Turn(*pair)
            for pair in zip(q["turns"], answers.get(q["question_id"], ["", ""]), strict=True)
        ]
        for q in _lines(folder / "questions" / "mt_bench.part1.jsonl")
    ]


def sgd_dialogues(folder: Path) -> list[list[Turn]]:
    """User and system take turns, the user first."""
    dialogues = []
    for dialogue in _lines(folder / "chat" / "sgd_dialogues.part1.jsonl"):
        said = [turn["utterance"] for turn in dialogue["turns"]]
        assert [t["speaker"] for t in dialogue["turns"][::2]] == ["USER"] * len(said[::2])
        answers = [*said[1::2], *[""] * (len(said) % 2)]
        dialogues.append([Turn(*pair) for pair in zip(said[::2], answers, strict=True)])
    return dialogues


def _lines(path: Path) -> list[dict]:  # type: ignore[type-arg]  # as the files have them
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
