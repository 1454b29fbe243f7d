"""How a model writes calls: told from its chat template, or by name.

Comes in: the template's text. Goes out: a ToolFormat, which knows how a request's messages and
tools become what the template takes, how calls are read, and how they are forced. A template that
knows no tools, or one whose calls nobody here reads, is told of them in the system message, in
Hermes' form (`wrapper.py`).
"""

from __future__ import annotations

import hashlib
import secrets
import string
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from octavo.errors import UsageError, unknown_option
from octavo.protocol.answer import CallReader
from octavo.protocol.tools import wrapper
from octavo.protocol.tools.asked import Tool, Tools
from octavo.protocol.tools.grammar import (
    Around,
    calls_beside,
    calls_grammar,
    strict_grammar,
)
from octavo.protocol.tools.harmony.dialect import Harmony
from octavo.protocol.tools.harmony.history import described
from octavo.protocol.tools.hermes import OPENING, Hermes
from octavo.protocol.tools.llama3 import Llama3
from octavo.protocol.tools.mistral import ARGUMENTS, TAG, Mistral
from octavo.protocol.tools.reader import TextReader
from octavo.tokenizer.control_names import has_channels

_NO_JSON = ("<function=", "<arg_key>", "<tool_sep>")  # calls between Hermes' tags in other forms
_ALPHABET = string.ascii_letters + string.digits
Messages = Sequence[Mapping[str, Any]]


class Dialect(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def shown_tokens(self) -> tuple[str, ...]:
        """Tags that may be control tokens, which the reader must see."""

    @property
    def id_length(self) -> int | None:
        """Letters and digits of a call's id, where templates take no other."""

    @property
    def example(self) -> str:
        """A call, for models that were not trained on any."""

    def reader(self, names: Collection[str], new_id: Callable[[], str]) -> CallReader: ...
    @property
    def around(self) -> Around:
        """What stands around calls, for grammars."""

    def written(self, name: str, arguments: object) -> str:
        """A call as a model would have written it."""


_DIALECTS: tuple[Dialect, ...] = (
    Hermes(),
    Llama3(),
    Mistral(named=False),
    Mistral(named=True),
    Harmony(),
)
FORMATS = tuple(dialect.name for dialect in _DIALECTS)  # what may be forced


@dataclass(frozen=True, slots=True)
class ToolFormat:
    dialect: Dialect
    wrapped: bool = False  # the template is not told of tools: the system message is
    is_foreign: bool = False  # wrapped since the template's own form is none that is read here
    alone: bool = False  # an answer is calls or text: behind text nothing is a call

    @property
    def name(self) -> str:
        return f"{self.dialect.name}-wrapper" if self.wrapped else self.dialect.name

    @property
    def shown_tokens(self) -> tuple[str, ...]:
        return self.dialect.shown_tokens

    @property
    def reads_all(self) -> bool:
        """It reads the whole of an answer, and not only the calls in it."""
        return isinstance(self.dialect, Harmony)

    def new_id(self) -> str:
        """Draw an id for a call that begins."""
        length = self.dialect.id_length
        if length is None:
            return f"call_{secrets.token_hex(12)}"
        return "".join(secrets.choice(_ALPHABET) for _ in range(length))

    def reader(self, names: Collection[str], new_id: Callable[[], str]) -> CallReader:
        reader = self.dialect.reader(names, new_id)
        if self.alone and isinstance(reader, TextReader):
            reader.only_first()
        return reader

    def grammar(
        self, tools: Tools, control: Mapping[str, int] = MappingProxyType({})
    ) -> str | None:
        """Lark text under which an answer is calls alone, where they are required; or under which
        the calls of strict tools keep their schemas; None where nothing is to be forced.
        `control`: ids of those `shown_tokens` that are control tokens. Raises BodyError for
        parameters that no grammar may have."""
        if tools.choice == "required":
            return calls_grammar(tools, self.dialect.around, control)
        if any(tool.strict for tool in tools.callable):
            return strict_grammar(tools, self.dialect.around, control)
        return None

    def grammar_beside(self, tools: Tools, control: Mapping[str, int]) -> str:
        """Return the Lark text of answers that are calls, or else what another grammar says."""
        return calls_beside(tools, self.dialect.around, control)

    def system_text(self, tools: Tools) -> str:
        return wrapper.system_text(tools, self.dialect.example)

    def prepare(
        self, messages: Messages, tools: Tools | None
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
        """The messages to render, and the tools to tell the template of."""
        told = () if tools is None else tools.told
        for_template: Callable[[Tool], dict[str, Any]] = Tool.for_template
        if isinstance(self.dialect, Harmony):
            messages, for_template = self.dialect.history(messages), described
        own = [self._with_own_ids(each) for each in messages]
        if not self.wrapped:
            return own, [for_template(tool) for tool in told] or None
        text = self.system_text(tools) if tools is not None and told else None
        return wrapper.wrapped(own, text, self.dialect.written), None

    def _with_own_ids(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The calls of a conversation that another model began have other ids."""
        found = dict(message)
        if isinstance(found.get("tool_call_id"), str):
            found["tool_call_id"] = self._own_id(found["tool_call_id"])
        if found.get("tool_calls"):
            calls = found["tool_calls"]
            found["tool_calls"] = [
                {**call, "id": self._own_id(call["id"])} if "id" in call else call for call in calls
            ]
        return found

    def _own_id(self, given: str) -> str:
        length = self.dialect.id_length
        if length is None or (len(given) == length and given.isascii() and given.isalnum()):
            return given
        return hashlib.sha256(given.encode("utf-8", "surrogatepass")).hexdigest()[:length]


def tool_format_of(template: str | None, forced: str | None = None) -> ToolFormat:
    """Raises UsageError for the name of no format, or of one that the template's is not."""
    if forced is not None and forced not in FORMATS:
        raise UsageError(str(unknown_option("tool format", forced, FORMATS)))
    seen = None if template is None else _dialect_of(template)
    if seen == Harmony.name and forced not in (None, seen):
        raise UsageError(
            f"tool format {forced!r}: the chat template is Harmony's, whose calls have a channel"
            " of their own: leave it out"
        )
    named = next((each for each in _DIALECTS if each.name == (forced or seen)), None)
    knows_tools = template is not None and _reads_tools(template)
    if named is None or not (knows_tools or forced or seen == Harmony.name):
        return ToolFormat(_DIALECTS[0], wrapped=True, is_foreign=knows_tools)
    return ToolFormat(named, wrapped=not knows_tools)


def _dialect_of(template: str) -> str | None:
    if has_channels(template):
        return Harmony.name
    if any(tag in template for tag in _NO_JSON):
        return None
    if OPENING in template:
        return "hermes"
    if TAG in template:
        return "mistral-args" if ARGUMENTS in template else "mistral"
    if "<|start_header_id|>" in template and '"parameters": ' in template:
        return "llama3"
    return None


def _reads_tools(template: str) -> bool:
    # Here: Jinja takes an eighth of the imports of a start, which may see no chat.
    from octavo.tokenizer.chat_template import variables_of

    try:
        return "tools" in variables_of(template)
    except UsageError:  # whoever renders a chat is told so
        return False
