"""The most that any cache could reuse of each prompt: the longest prefix that it has in common with
anything computed before, found in a sorted list of token sequences.

Knows token ids only; shares no code with the prefix index.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


class ComputedBefore:
    def __init__(self) -> None:
        self._sequences: list[tuple[int, ...]] = []  # sorted

    def add(self, tokens: Sequence[int]) -> None:
        key = tuple(tokens)
        self._sequences.insert(bisect_left(self._sequences, key), key)

    def longest_prefix(self, tokens: Sequence[int]) -> int:
        """The sequence that shares most is a neighbour of where `tokens` would stand."""
        key = tuple(tokens)
        at = bisect_left(self._sequences, key)
        near = self._sequences[max(0, at - 1) : at + 1]
        return max((_common(key, each) for each in near), default=0)


def reusable(prompt_tokens: int, shared: int, block_size: int = 1) -> int:
    """Return how many tokens of a prompt can be reused that shares `shared` with an earlier one:
    whole blocks of them, and never its last token, whose output is wanted."""
    return min(prompt_tokens - 1, shared) // block_size * block_size


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    low, high = 0, min(len(left), len(right))  # the first `low` are equal
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
