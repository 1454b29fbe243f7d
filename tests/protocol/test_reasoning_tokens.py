"""How many tokens of an answer its reasoning took."""

from __future__ import annotations

import pytest

from octavo.protocol.reasoning import reasoning_tokens

PIECES = ("<think>", "a", " b", "c", "</think>", " d", "\u20ac")


@pytest.mark.parametrize(
    ("ids", "reasoning", "count"),
    [((5, 1), None, 0), ((0, 1, 2, 3, 4, 5), "a bc", 4), ((1, 2, 4, 5), "a b", 2),
     ((0, 6, 6, 4, 5), "\u20ac\u20ac", 3), ((0, 1), "a", 2),
     ((0, 1, 4, 5, 0, 2, 3, 4, 5), "a\n bc", 7)],
)  # fmt: skip
def test_tokens_to_its_end_are_counted(
    ids: tuple[int, ...], reasoning: str | None, count: int
) -> None:
    assert reasoning_tokens(ids, reasoning, lambda i: PIECES[i].encode()) == count
