"""The end of a text that may be the beginning of a tag, when text comes in pieces."""

from __future__ import annotations

from collections.abc import Iterable


def beginning_at_end(text: str, tags: Iterable[str]) -> int:
    """How many characters at the end of `text` a tag may begin with; a whole tag is none."""
    return max((_beginning(text, tag) for tag in tags), default=0)


def _beginning(text: str, tag: str) -> int:
    longest = min(len(text), len(tag) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(tag[:n])), 0)
