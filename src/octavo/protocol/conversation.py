"""Conversation: how one model is talked to, told from its chat template.

Comes in: what a chat asks. Goes out: what its template is given, and who reads the answer: which
part of it is text, reasoning, or a call. Knows no engine and no API's bodies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from octavo.errors import UsageError
from octavo.grammar import GrammarSpec
from octavo.protocol.answer import AnswerReader, Call, collect
from octavo.protocol.chat import ChatRequest
from octavo.protocol.reasoning import ReasoningFormat, reasoning_of
from octavo.protocol.tools.asked import Tools
from octavo.protocol.tools.formats import ToolFormat, tool_format_of
from octavo.protocol.tools.harmony.dialect import Harmony
from octavo.tokenizer.messages import read_messages

_ARGUMENTS = "chat_template_kwargs"  # as a whole: its names are the caller's


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
    grammar: GrammarSpec | None  # of the answer
    grammar_field: str  # of the body, that asks for it
    shown_tokens: tuple[int, ...]  # control tokens that the reader of the answer must see

    def new_reader(self) -> AnswerReader:
        """Return a reader of one answer."""
        format_ = self.tool_format
        return AnswerReader(format_, self.reasoning, self.asked, format_.new_id)

    def message(self, text: str) -> dict[str, Any]:
        """A whole answer as the message that it is in the next turn."""
        reader = self.new_reader()
        answer = collect([*reader.push(text), *reader.finish()])
        message: dict[str, Any] = {"role": "assistant", "content": answer.content or ""}
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        if answer.calls:
            message["tool_calls"] = [_call(each) for each in answer.calls]
        (read,) = read_messages([message])
        return read


class Conversation:
    """`template_for` gives the template of chats with tools, and without; `control_id` the id of a
    control token by its name, None where the model has none of it."""

    def __init__(
        self,
        template_for: Callable[[bool], str | None],
        control_id: Callable[[str], int | None],
        *,
        tool_format: str | None = None,
        inline_reasoning: bool = False,
    ) -> None:
        """Raises UsageError for a tool format that nobody knows."""
        self._template_for = template_for
        self._control_id = control_id
        self._tool_format = tool_format_of(template_for(True), tool_format)
        self._inline = inline_reasoning

    @property
    def tool_format(self) -> ToolFormat:
        return self._tool_format

    def turn(self, asked: ChatRequest) -> Turn:
        template = self._template_for(asked.tools is not None)
        arguments = dict(asked.template_args)
        noted = list(asked.tools.noted) if asked.tools else []
        if template is not None and arguments and not arguments.keys() <= _variables_of(template):
            noted.append(_ARGUMENTS)
        told = self._told(template, arguments)
        if asked.effort is not None:
            said = told.arguments(asked.effort) if told else {}
            if said:
                arguments = {**said, **arguments}
                told = self._told(template, arguments)
            else:
                noted += asked.effort_fields
        tool_format, reasoning = self._tool_format, None
        if asked.grammar is not None:
            tool_format = replace(tool_format, alone=True)
        if isinstance(told, Harmony):
            tool_format = replace(tool_format, dialect=told.ending(asked.end))
        elif told is not None:
            reasoning = _begun(told, asked)
        if reasoning is not None and self._inline:
            reasoning = replace(reasoning, inline=True)
        messages, tools = tool_format.prepare(asked.messages, asked.tools)
        return Turn(
            messages,
            tools,
            arguments,
            tuple(noted),
            asked.tools,
            tool_format,
            reasoning,
            *self._grammar(asked, tool_format, reasoning),
            self._shown(asked, reasoning),
        )

    def _told(
        self, template: str | None, arguments: Mapping[str, Any]
    ) -> ReasoningFormat | Harmony | None:
        """Return how answers reason to prompts of this template, told these arguments."""
        dialect = self._tool_format.dialect
        if isinstance(dialect, Harmony):
            return replace(dialect.told(template, arguments), inline=self._inline)
        return reasoning_of(template, arguments)

    def _shown(self, asked: ChatRequest, reasoning: ReasoningFormat | None) -> tuple[int, ...]:
        reads_calls = asked.tools is not None or self._tool_format.reads_all
        calls = self._tool_format.shown_tokens if reads_calls else ()
        return tuple(
            self._control([*calls, *(reasoning.shown_tokens if reasoning else ())]).values()
        )

    def _control(self, names: Iterable[str]) -> dict[str, int]:
        """Those of the names that are control tokens, with their ids."""
        found = {name: self._control_id(name) for name in names}
        return {name: token_id for name, token_id in found.items() if token_id is not None}

    def _grammar(
        self, asked: ChatRequest, tool_format: ToolFormat, reasoning: ReasoningFormat | None
    ) -> tuple[GrammarSpec | None, str]:
        """What the answer is held to, behind its reasoning if the prompt opens one: calls, what the
        body asks for, or either; and the field that says so."""
        after = None if reasoning is None else reasoning.after
        tools = asked.tools if asked.tools is not None and asked.tools.callable else None
        control = self._control(tool_format.shown_tokens)
        if isinstance(tool_format.dialect, Harmony):
            is_own = asked.grammar is not None and (tools is None or tools.choice != "required")
            held = tool_format.dialect.grammar(asked.grammar, tools, control)
            return held, asked.grammar_field if is_own else "tools"
        if tools is None:
            own = None if asked.grammar is None else replace(asked.grammar, after=after)
            return own, asked.grammar_field
        if asked.grammar is None or tools.choice == "required":
            calls = tool_format.grammar(tools, control)
            return None if calls is None else GrammarSpec("lark", calls, after), "tools"
        instead = tool_format.grammar_beside(tools, control)
        return replace(asked.grammar, instead=instead, after=after), asked.grammar_field


def _call(call: Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def _begun(reasoning: ReasoningFormat, asked: ChatRequest) -> ReasoningFormat | None:
    """How it is where the prompt does not end as the template would have it: a message that is
    continued reasons on only if it has just begun to."""
    if asked.end == "answer":
        return reasoning
    if asked.end == "closed":
        return replace(reasoning, begun="no")
    said = asked.messages[-1]["content"]
    is_inside = said.lstrip().startswith(reasoning.opening) and reasoning.closing not in said
    return replace(reasoning, begun="opened") if is_inside else None


def _variables_of(template: str) -> frozenset[str]:
    # Here: Jinja takes an eighth of the imports of a start, which may see no chat.
    from octavo.tokenizer.chat_template import variables_of

    try:
        return variables_of(template)
    except UsageError:  # whoever renders the chat is told so
        return frozenset()
