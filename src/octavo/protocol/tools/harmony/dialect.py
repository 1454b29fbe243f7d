"""Harmony as one model is talked to in it: how its answers are read, held and given back.

A dialect like the others, in that calls are told from text; but it reads the whole of an answer,
with tools or without, since its reasoning and its text have headers too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, get_args

from octavo.grammar import GrammarSpec
from octavo.protocol.reasoning import ask
from octavo.protocol.tools.asked import Tools
from octavo.protocol.tools.harmony.grammar import AROUND, held_to
from octavo.protocol.tools.harmony.header import (
    CHANNEL,
    CONSTRAIN,
    FUNCTIONS,
    MESSAGE,
    TAGS,
    Channel,
)
from octavo.protocol.tools.harmony.history import as_written
from octavo.protocol.tools.harmony.reader import ChannelReader
from octavo.protocol.tools.written import arguments_text
from octavo.tokenizer.chat import ChatEnd

_EFFORT = "reasoning_effort"
# Of the words that clients have, those that models know; there is none for no reasoning.
_EFFORTS: Mapping[str, str] = MappingProxyType(
    {
        **{"minimal": "low", "low": "low", "medium": "medium"},
        **{"high": "high", "xhigh": "high", "max": "high"},
    }
)


@dataclass(frozen=True, slots=True)
class Harmony:
    opened: Channel | None = None  # that the prompt ends in; None: the answer begins with a header
    begins: bool = False  # the answer begins with `<|start|>`, which the prompt leaves to it
    inline: bool = False  # reasoning stays in the text of the answer, between <think> and </think>
    takes_effort: bool = False  # the template reads `reasoning_effort`

    name = "harmony"
    shown_tokens = TAGS
    id_length = None
    around = AROUND

    @property
    def example(self) -> str:
        return self.written("NAME", {"ARGUMENT": "VALUE"})

    def reader(self, names: Collection[str], new_id: Callable[[], str]) -> ChannelReader:
        return ChannelReader(names, new_id, opened=self.opened, inline=self.inline)

    def written(self, name: str, arguments: object) -> str:
        header = f"{CHANNEL}commentary to={FUNCTIONS}{name} {CONSTRAIN}json{MESSAGE}"
        return header + arguments_text(arguments)

    def told(self, template: str | None, arguments: Mapping[str, Any]) -> Harmony:
        """Return it as this template has it, told these arguments."""
        asked = ask(template or "", arguments)
        if asked is None:
            return self
        names, prompt = asked
        opened = next(
            (each for each in get_args(Channel) if prompt.endswith(f"{CHANNEL}{each}{MESSAGE}")),
            None,
        )
        return replace(self, opened=opened, takes_effort=_EFFORT in names)

    def ending(self, end: ChatEnd) -> Harmony:
        """Return it for a prompt that ends there."""
        if end == "answer":
            return self
        is_open = end == "open"
        return replace(self, opened="final" if is_open else None, begins=not is_open)

    def arguments(self, effort: str | None) -> dict[str, object]:
        """Return what to tell the template for this effort; for "none" it has no word."""
        found = _EFFORTS.get(effort) if effort is not None and self.takes_effort else None
        return {} if found is None else {_EFFORT: found}

    def history(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return earlier turns as the template takes them."""
        return as_written(messages, inline=self.inline)

    def grammar(
        self, own: GrammarSpec | None, tools: Tools | None, control: Mapping[str, int]
    ) -> GrammarSpec | None:
        """Return what an answer is held to: calls, what the body asks for, or either. Raises
        BodyError."""
        return held_to(own, tools, self.opened, control, begins=self.begins)
