"""Shows answers at a terminal: all of them as they are written, but those in channels.

Comes in: a chat template, and the text of answers in pieces. Goes out: what to show of them, and
what of a whole answer the conversation goes on with. Knows no format of channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from octavo.tokenizer.control_names import has_channels

if TYPE_CHECKING:
    from octavo.tokenizer import Tokenizer


class Shown(Protocol):
    """Tells what one answer shows, piece by piece."""

    def push(self, text: str) -> str: ...
    def finish(self) -> str: ...


class Channels(Protocol):
    @property
    def shown_tokens(self) -> tuple[int, ...]:
        """Control tokens that the reader of an answer must see: none of them is hidden."""

    def reader(self) -> Shown:
        """Return the reader of what one answer shows."""

    def said(self, text: str) -> str:
        """Return the text that an answer is in the next turn."""


def channels_of(template: str | None, tokenizer: Tokenizer) -> Channels:
    """Return how answers to prompts of this template are shown; None: there is no template."""
    if template is None or not has_channels(template):
        return _AsWritten()
    # Here: no other answer has a use for what reads channels.
    from octavo.cli.harmony import InChannels

    return InChannels(template, tokenizer)


class _AsWritten:
    shown_tokens: tuple[int, ...] = ()

    def reader(self) -> _AsWritten:
        return self

    def push(self, text: str) -> str:
        return text

    def finish(self) -> str:
        return ""

    def said(self, text: str) -> str:
        return text
