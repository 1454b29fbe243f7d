"""Conversations in ShareGPT's JSON: a list of objects whose `conversations` are turns with `from`
and `value`.

Comes in: a file. Goes out: the first question of some of its conversations, with the length of what
it was answered. Of which model the tokens are is not known, so a token is counted as four
characters, as English has them; it decides which conversations are taken (those that vLLM's
benchmarks take: 4 to 1,024 tokens of a prompt, 4 or more of an answer, 2,048 of both) and how long
answers are asked for.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from octavo.errors import UsageError, counted, kind_of
from octavo.given_text import decode

CHARACTERS = 4  # of a token
LEAST, MOST_PROMPT, MOST = 4, 1024, 2048
_USERS = ("human", "user")


def read_sharegpt(file: str, requests: int, seed: int) -> list[tuple[str, int]]:
    """So many prompts and lengths of answers, drawn from the file; none is taken twice, for a
    server's cache would have it. Raises UsageError, which names file, place and what was
    expected."""
    found = _read(file)
    pairs = [pair for pair in _first_turns(file, found) if _is_taken(*pair)]
    if len(pairs) < requests:
        raise UsageError(
            f"dataset={file!r}: has {counted(len(pairs), 'conversation')} of a fitting length, "
            f"expected {requests:,} for as many --requests"
        )
    return random.Random(f"dataset {seed}").sample(pairs, requests)


def _read(file: str) -> list[Any]:
    try:
        found = json.loads(decode(file, Path(file).read_bytes()))
    except json.JSONDecodeError as error:
        why = f"{error.msg} in line {error.lineno:,}, column {error.colno:,}"
        raise UsageError(f"dataset={file!r}: is not JSON: {why}") from None
    except RecursionError:
        raise UsageError(f"dataset={file!r}: is nested too deeply") from None
    if not isinstance(found, list):
        raise UsageError(
            f"dataset={file!r}: expected a list of conversations, found {kind_of(found)}"
        )
    return found


def _first_turns(file: str, found: list[Any]) -> Iterator[tuple[str, int]]:
    """Yield the first question of each conversation that has an answer, and the answer's tokens."""
    for i, each in enumerate(found):
        turns = each.get("conversations") if isinstance(each, dict) else None
        if not isinstance(turns, list):
            raise _wrong(file, f"[{i}].conversations", "a list of turns")
        said = [_turn(file, f"[{i}].conversations[{j}]", turn) for j, turn in enumerate(turns)]
        first = next((j for j, (who, _) in enumerate(said) if who in _USERS), len(said))
        if first + 1 < len(said) and said[first + 1][0] not in _USERS:
            yield said[first][1], -(-len(said[first + 1][1]) // CHARACTERS)


def _turn(file: str, place: str, turn: object) -> tuple[str, str]:
    if isinstance(turn, dict):
        who, value = turn.get("from"), turn.get("value")
        if isinstance(who, str) and isinstance(value, str):
            return who, value
    raise _wrong(file, place, 'an object with the texts "from" and "value"')


def _is_taken(prompt: str, answer: int) -> bool:
    tokens = len(prompt) / CHARACTERS
    return LEAST <= tokens <= MOST_PROMPT and answer >= LEAST and tokens + answer <= MOST


def _wrong(file: str, place: str, expected: str) -> UsageError:
    return UsageError(f"dataset={file!r}: {place}: expected {expected}")
