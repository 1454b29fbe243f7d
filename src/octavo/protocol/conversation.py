"""Conversation: how one model is talked to, told from its chat template.

Comes in: what a chat asks. Goes out: what its template is given, and who reads the answer: which
part of it is text, reasoning, or a call. Knows no engine and no API's bodies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from octavo.protocol.answer import AnswerReader
from octavo.protocol.chat import ChatRequest
from octavo.protocol.reasoning import ReasoningFormat, reasoning_of
from octavo.protocol.tools.asked import Tools
from octavo.protocol.tools.formats import ToolFormat, tool_format_of


@dataclass(frozen=True, slots=True)
class Turn:
    """What the template is given, and how the answer is read."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] | None
    template_args: Mapping[str, Any]
    noted: tuple[str, ...]  # what the template has no place for
    asked: Tools | None
    tool_format: ToolFormat
    reasoning: ReasoningFormat | None

    @property
    def shown_tokens(self) -> tuple[str, ...]:
        """Names of control tokens that the reader of the answer must see."""
        calls = self.tool_format.shown_tokens if self.asked is not None else ()
        return (*calls, *(self.reasoning.shown_tokens if self.reasoning else ()))

    def new_reader(self) -> AnswerReader:
        """For one answer."""
        format_ = self.tool_format
        return AnswerReader(format_, self.reasoning, self.asked, format_.new_id)


class Conversation:
    """`template_for` gives the template of chats with tools, and without."""

    def __init__(
        self,
        template_for: Callable[[bool], str | None],
        *,
        tool_format: str | None = None,
        inline_reasoning: bool = False,
    ) -> None:
        """Raises UsageError for a tool format that nobody knows."""
        self._template_for = template_for
        self._tool_format = tool_format_of(template_for(True), tool_format)
        self._inline = inline_reasoning

    @property
    def tool_format(self) -> ToolFormat:
        return self._tool_format

    def turn(self, asked: ChatRequest) -> Turn:
        template = self._template_for(asked.tools is not None)
        arguments = dict(asked.template_args)
        noted = list(asked.tools.noted) if asked.tools else []
        reasoning = reasoning_of(template, arguments)
        if asked.effort is not None:
            said = reasoning.arguments(asked.effort) if reasoning else {}
            if said:
                arguments = {**said, **arguments}
                reasoning = reasoning_of(template, arguments)
            else:
                noted.append("reasoning_effort")
        if reasoning is not None and self._inline:
            reasoning = replace(reasoning, inline=True)
        messages, tools = self._tool_format.prepare(asked.messages, asked.tools)
        return Turn(
            messages, tools, arguments, tuple(noted), asked.tools, self._tool_format, reasoning
        )
