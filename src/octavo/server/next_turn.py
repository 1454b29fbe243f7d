"""The token ids of a conversation that goes on: those of earlier turns as they were, generated ones
among them, and behind them what is new.

Comes in: what is kept of a conversation, and how messages are rendered to ids. What follows is told
from two renderings, with the new messages and without: the shorter has to be the beginning of the
longer. A template that rewrites earlier turns is refused. Knows no engine.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from octavo.errors import UsageError

Messages = Sequence[Mapping[str, Any]]
# To ids, with a generation prompt or without.
Encode = Callable[[Messages, bool], Coroutine[Any, Any, list[int]]]

_ASKED = {"role": "user", "content": "?"}
_ANSWERS = ("Yes", "No")


class RewrittenError(UsageError):
    """The template does not render a conversation as it was."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A conversation in ids, without the end token of its last answer."""

    ids: Sequence[int]
    rendered: bytes  # digest of what the template gave for it, up to its last answer
    is_answered: bool  # its last message is an answer, whose ids were generated

    def answered(self, ids: Sequence[int], ends: frozenset[int]) -> Kept:
        """Return it with an answer behind it, whose end token is left to the template."""
        own = ids[:-1] if ids and ids[-1] in ends else ids
        return Kept(array("i", [*self.ids, *own]), self.rendered, is_answered=True)


def as_rendered(ids: Sequence[int]) -> Kept:
    """A conversation that is kept as the template gave it."""
    return Kept(array("i", ids), _digest(ids), is_answered=False)


async def go_on(encode: Encode, kept: Kept, before: Messages, after: Messages) -> Kept:
    """The prompt of a conversation `before`, of which `kept` has the ids, and new messages. Raises
    RewrittenError, and UsageError if the template refuses one of them."""
    before = list(map(_plain, before))
    held = await encode(before, False)
    whole = await encode([*before, *map(_plain, after)], True)
    asked = await encode(before[:-1], True) if kept.is_answered else held
    if _digest(asked) != kept.rendered:
        raise RewrittenError(
            "the conversation is not rendered as it was: it had other tools or template variables"
        )
    closing = await _closing(encode) if kept.is_answered else []
    behind = held[len(asked) :]
    is_same = whole[: len(held)] == held and held[: len(asked)] == asked
    if not is_same or behind[len(behind) - len(closing) :] != closing:
        raise RewrittenError(
            "the model's chat template rewrites earlier turns, so that their tokens cannot be kept:"
            " send the whole conversation"
        )
    ids = array("i", [*kept.ids, *closing, *whole[len(held) :]])
    return Kept(ids, _digest(whole), is_answered=False)


def _plain(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """An answer without blanks before it, which may be one token with what the template writes
    there: of its ids only those behind it are used."""
    if message["role"] != "assistant":
        return message
    return {**message, "content": message["content"].lstrip()}


async def _closing(encode: Encode) -> list[int]:
    """What the template writes behind an answer: what two of them end with."""
    found = [
        await encode([_ASKED, {"role": "assistant", "content": answer}], False)
        for answer in _ANSWERS
    ]
    count = 0
    for one, other in zip(*map(reversed, found), strict=False):
        if one != other:
            break
        count += 1
    return found[0][len(found[0]) - count :]


def _digest(ids: Sequence[int]) -> bytes:
    return hashlib.sha256(array("i", ids).tobytes()).digest()
