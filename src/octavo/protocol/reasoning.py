"""Reasoning that a model writes before its answer, between two tags.

Comes in: a chat template, and then the text of an answer in pieces. Goes out: how the template
begins and switches reasoning, and each piece as (reasoning, answer). Only what an answer begins
with is reasoning: a tag further on is text. Blanks around reasoning belong to neither.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from octavo.errors import UsageError
from octavo.protocol.partial import beginning_at_end

_TAGS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
_SWITCHES = ("enable_thinking", "thinking")  # variables of templates, true or false
_EFFORT = "reasoning_effort"
_NO_EFFORT = "none"
_ASKED = ({"role": "user", "content": "?"},)

# What the prompt ends with: neither tag (the model may begin to reason), the opening one, or both.
Begun = Literal["no", "opened", "closed"]


@dataclass(frozen=True, slots=True)
class ReasoningFormat:
    opening: str
    closing: str
    begun: Begun = "no"
    switch: str | None = None  # the template's variable that turns reasoning on and off
    takes_effort: bool = False  # the template reads `reasoning_effort`
    inline: bool = False  # reasoning stays in the text of the answer, with its tags

    @property
    def shown_tokens(self) -> tuple[str, ...]:
        return (self.opening, self.closing)

    @property
    def after(self) -> str | None:
        """The text after which a grammar begins; None: at once, since a model that may reason,
        and does not, never writes the tag."""
        return self.closing if self.begun == "opened" else None

    def arguments(self, effort: str | None) -> dict[str, object]:
        """What to tell the template for this effort; "none" is no reasoning."""
        if effort is None:
            return {}
        said: dict[str, object] = {}
        if self.switch is not None:
            said[self.switch] = effort != _NO_EFFORT
        if self.takes_effort and effort != _NO_EFFORT:
            said[_EFFORT] = effort
        return said

    def reader(self) -> ReasoningReader:
        return ReasoningReader(self)


def ask(template: str, arguments: Mapping[str, Any]) -> tuple[Container[str], str] | None:
    """Return the variables that a template reads, and the prompt that it makes of one question;
    None where it makes none: whoever renders a chat is told why."""
    # Here: Jinja takes an eighth of the imports of a start, which may see no chat.
    from octavo.tokenizer.chat_template import ChatTemplate, variables_of

    try:
        return variables_of(template), ChatTemplate(template, "", "").render(_ASKED, **arguments)
    except UsageError:
        return None


def reasoning_of(
    template: str | None, arguments: Mapping[str, Any] = MappingProxyType({})
) -> ReasoningFormat | None:
    """How answers to prompts of this template, told these arguments, reason. None: not at all."""
    tags = next((tags for tags in _TAGS if template and all(tag in template for tag in tags)), None)
    if template is None or tags is None:
        return None
    asked = ask(template, arguments)
    if asked is None:
        return ReasoningFormat(*tags)
    names, prompt = asked[0], asked[1].rstrip()
    found = ReasoningFormat(
        *tags,
        switch=next((name for name in _SWITCHES if name in names), None),
        takes_effort=_EFFORT in names,
    )
    if prompt.endswith(found.opening):
        return replace(found, begun="opened")
    return replace(found, begun="closed") if prompt.endswith(found.closing) else found


def reasoning_tokens(
    token_ids: Sequence[int], reasoning: str | None, token_bytes: Callable[[int], bytes]
) -> int:
    """How many tokens of an answer are its reasoning, with the tag that opens it; of reasoning with
    text between, as in channels, all tokens to its end."""
    if not reasoning:
        return 0
    texts = [token_bytes(token_id) for token_id in token_ids]
    whole, wanted, end = b"".join(texts), reasoning.encode(), 0
    for part in [wanted] if wanted in whole else wanted.splitlines():
        end = max(whole.find(part, end), end) + len(part)
    starts = itertools.accumulate(map(len, texts), initial=0)
    return sum(start < end for start in itertools.islice(starts, len(texts)))


class ReasoningReader:
    """Splits one answer; `push` and `finish` give (reasoning, answer)."""

    def __init__(self, format: ReasoningFormat) -> None:
        self._format = format
        self._place: Literal["before", "inside", "after", "answer"] = "before"
        self._held = ""  # not told yet: it may be a tag, or blanks at an end
        self._told = False  # some reasoning was

    def push(self, text: str) -> tuple[str, str]:
        if self._place == "answer":
            return "", text
        self._held += text
        reasoning = ""
        if self._place == "before":
            self._begin()
        if self._place == "inside":
            reasoning = self._reason()
        if self._place == "after":
            self._held = self._held.lstrip()
            self._place = "answer" if self._held else "after"
        if self._place == "answer":
            text, self._held = self._held, ""
            return reasoning, text
        return reasoning, ""

    def finish(self) -> tuple[str, str]:
        held, self._held = self._held, ""
        if self._place == "before" and self._format.begun != "opened":
            return "", held
        if self._place in ("before", "inside"):
            return self._trimmed(held if self._format.inline else held.rstrip()), ""
        return "", ""  # blanks after the closing tag

    def _begin(self) -> None:
        text, opening = self._held.lstrip(), self._format.opening
        if len(text) < len(opening) and opening.startswith(text):
            return
        if text.startswith(opening):  # a model may say it although the prompt did
            self._held = self._held if self._format.inline else text.removeprefix(opening)
            self._place = "inside"
        else:
            self._place = "inside" if self._format.begun == "opened" else "answer"

    def _reason(self) -> str:
        text, closing, inline = self._held, self._format.closing, self._format.inline
        end = text.find(closing)
        if end < 0:
            sure = text[: len(text) - beginning_at_end(text, (closing,))]
            sure = sure if inline else sure.rstrip()
            self._held = text[len(sure) :]
            return self._trimmed(sure)
        self._held = text[end + len(closing) :]
        self._place = "answer" if inline else "after"
        return text[: end + len(closing)] if inline else self._trimmed(text[:end].rstrip())

    def _trimmed(self, text: str) -> str:
        """Without the blanks that reasoning begins with."""
        text = text if self._told or self._format.inline else text.lstrip()
        self._told = self._told or bool(text)
        return text
