"""Conversations as ShareGPT's file has them, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from octavo.bench.server_load.sharegpt import CHARACTERS, read_sharegpt
from octavo.errors import UsageError

CONVERSATIONS = str(Path(__file__).with_name("conversations.json"))


def pair(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def test_the_first_question_that_was_answered_is_taken_once() -> None:
    found = dict(read_sharegpt(CONVERSATIONS, 3, seed=0))
    begins = {question[:16]: tokens for question, tokens in found.items()}
    # 67, 73 and 43 characters of answers.
    assert begins == {"Which river runs": 17, "Then tell me why": 19, "Say in one line ": 11}
    orders = {tuple(read_sharegpt(CONVERSATIONS, 3, seed)) for seed in range(20)}
    assert len(orders) > 1
    assert {frozenset(order) for order in orders} == {frozenset(found.items())}
    assert read_sharegpt(CONVERSATIONS, 2, 5) == read_sharegpt(CONVERSATIONS, 2, 5)


@pytest.mark.parametrize(
    ("prompt", "answer", "is_taken"),
    [
        (4, 4, True), (3, 4, False), (4, 3, False), (1024, 1024, True), (1025, 4, False),
        (1024, 1025, False), (4, 2044, True), (4, 2045, False),
    ],
)  # fmt: skip
def test_lengths_that_are_taken(tmp_path: Path, prompt: int, answer: int, is_taken: bool) -> None:
    file = tmp_path / "one.json"
    turns = pair("p" * CHARACTERS * prompt, "a" * CHARACTERS * answer)
    file.write_text(json.dumps([{"conversations": turns}]))
    if is_taken:
        assert read_sharegpt(str(file), 1, 0) == [("p" * CHARACTERS * prompt, answer)]
    else:
        with pytest.raises(UsageError, match="has 0 conversations of a fitting length, expected 1"):
            read_sharegpt(str(file), 1, 0)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is not JSON: Expecting value in line 1, column 1"),
        ('[\n{"conversations": ]', "is not JSON: Expecting value in line 2, column 19"),
        ("[" * 100_000, "is nested too deeply"),
        ("{}", "expected a list of conversations, found an object"),
        ("[3]", "[0].conversations: expected a list of turns"),
        ('[{"conversation": []}]', "[0].conversations: expected a list of turns"),
        ('[{"conversations": []}, {"conversations": ["hi"]}]',
         '[1].conversations[0]: expected an object with the texts "from" and "value"'),
        ('[{"conversations": [{"from": "human", "value": null}]}]',
         '[0].conversations[0]: expected an object with the texts "from" and "value"'),
    ],
)  # fmt: skip
def test_what_is_no_dataset_is_told_with_its_place(
    tmp_path: Path, text: str, complaint: str
) -> None:
    file = tmp_path / "wrong.json"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_sharegpt(str(file), 1, 0)
    assert str(caught.value) == f"dataset={str(file)!r}: {complaint}"


def test_text_that_is_no_utf8_is_told_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "latin.json"
    file.write_bytes(b'["\xe9"]')
    with pytest.raises(UsageError, match="is not UTF-8 at byte 2"):
        read_sharegpt(str(file), 1, 0)
