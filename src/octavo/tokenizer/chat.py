"""Which special tokens in a rendered chat are the template's own, and which are a user's words.

Comes in: a template, messages as `messages.py` gives them. Goes out: plain strings and special ids,
in order; neighbouring plain text is one string, because tokens may cross the border between
template and message. Knows no BPE.

The text to encode is always the plain rendering, which must hold what the user said last. Where a
message holds the text of a control token (or a part that the template's next characters could
complete) the chat is rendered once more with random marks in those places; specials are looked for
outside the marks only. If both renderings do not agree once the marks are put back, the template
looks into that text, nobody can say whose words they are, and the chat is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from octavo.errors import UsageError
from octavo.tokenizer.special import Fragment, SpecialMatcher

if TYPE_CHECKING:
    from octavo.tokenizer.chat_template import ChatTemplate

# Where the ids of a chat end: where an answer begins, behind the last message, or in it, at the end
# of what it says, so that the answer goes on from there.
ChatEnd = Literal["answer", "closed", "open"]

_PLAINLY_THERE = 32  # characters of words that no template says by chance
_FREE_TEXT = ("content", "text")


def rendered(
    template: ChatTemplate, messages: Sequence[Mapping[str, Any]], args: Mapping[str, Any]
) -> str:
    """The plain rendering. A template that leaves out what the user said last is refused.

    It may write those words in its own way (without blanks, as JSON, in capitals), so where they
    are not plainly there a random word is sent in their place: that one has to be.
    """
    text = template.render(messages, **args)
    asked = [i for i, message in enumerate(messages) if message["role"] == "user"]
    if not asked:
        return text
    last = messages[asked[-1]]
    words = last["content"].strip()
    if len(words) >= _PLAINLY_THERE and words in text:
        return text
    word = os.urandom(16).hex()
    instead = [*messages]
    instead[asked[-1]] = {**last, "content": word}
    if word not in template.render(instead, **args).lower():
        raise UsageError(
            "the chat template leaves out what the user says: it may be another model's; give the"
            " right one with --chat-template (chat_template=)"
        )
    return text


def left_open(
    messages: Sequence[Mapping[str, Any]],
) -> tuple[list[Mapping[str, Any]], str]:
    """The messages with a random word behind the last one, and that word: `cut` finds it. So the
    blanks that it ends with are kept, which a template would trim."""
    word = os.urandom(16).hex()
    *others, last = messages
    return [*others, {**last, "content": last["content"] + word}], word


def cut(fragments: Sequence[Fragment], word: str) -> list[Fragment]:
    """What stands before the word of `left_open`. Raises UsageError where it is not there once."""
    found = [i for i, each in enumerate(fragments) if isinstance(each, str) and word in each]
    if len(found) == 1:
        text = fragments[found[0]]
        assert isinstance(text, str)
        before, *after = text.split(word)
        if len(after) == 1:
            return [*fragments[: found[0]], *([before] if before else [])]
    raise UsageError(
        "the chat template does not write the last message as it is, so that it cannot be continued"
    )


def fragments(
    template: ChatTemplate,
    specials: SpecialMatcher,
    messages: Sequence[Mapping[str, Any]],
    args: Mapping[str, Any],
    text: str,
) -> list[Fragment]:
    """The plain rendering `text`, cut at the special tokens that the template itself wrote."""
    marks = _Marks(specials)
    hidden_messages = [marks.hide(message) for message in messages]
    hidden_args = {name: marks.hide(value) for name, value in args.items()}
    if not marks.hidden:
        return specials.split(text)
    found = marks.split(template.render(hidden_messages, **hidden_args))
    if "".join(plain for plain, _ in found) != text:
        words = ", ".join(sorted({repr(piece) for piece in marks.hidden}))
        raise UsageError(
            f"a message contains {words}, which the chat template treats in its own way; remove it"
            " from the message, or allow special tokens in messages with --parse-special"
        )
    return _cut(found, specials)


def _cut(found: list[tuple[str, bool]], specials: SpecialMatcher) -> list[Fragment]:
    result: list[Fragment] = []
    for text, is_message in found:
        for fragment in [text] if is_message else specials.split(text):
            last = result[-1] if result else None
            if isinstance(fragment, str) and isinstance(last, str):
                result[-1] = last + fragment
            else:
                result.append(fragment)
    return result


class _Marks:
    """Puts random marks in the place of special-token text and finds them again after rendering."""

    def __init__(self, specials: SpecialMatcher) -> None:
        self._specials = specials
        # letters and digits only: no filter or JSON writer changes them
        self._nonce = os.urandom(16).hex()
        self.hidden: list[str] = []

    def hide(self, value: Any, *, free_text: bool = False) -> Any:
        """A copy of `value`, its tokens marked; `free_text` marks partial ones at the ends too."""
        if isinstance(value, str):
            return self._hide_text(value, free_text)
        if isinstance(value, Mapping):
            return {
                self.hide(key): self.hide(item, free_text=key in _FREE_TEXT)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.hide(item, free_text=free_text) for item in value]
        return value

    def split(self, rendered: str) -> list[tuple[str, bool]]:
        """`rendered` with its marks undone, as (text, whether it was marked)."""
        parts = re.split(rf"{self._nonce}x(\d+)x", rendered)
        return [
            (self.hidden[int(part)], True) if odd % 2 else (part, False)
            for odd, part in enumerate(parts)
            if part
        ]

    def _hide_text(self, text: str, free_text: bool) -> str:
        pieces = []
        done = 0
        for start, end in self._spans(text, free_text):
            pieces += [text[done:start], f"{self._nonce}x{len(self.hidden)}x"]
            self.hidden.append(text[start:end])
            done = end
        return "".join(pieces) + text[done:]

    def _spans(self, text: str, free_text: bool) -> list[tuple[int, int]]:
        """Find where special-token text stands in `text`, in order, without overlaps."""
        spans = [(start, end) for start, end, _ in self._specials.matches(text)]
        if not free_text:
            return spans
        # blanks at the ends are left alone: templates trim them
        start = len(text) - len(text.lstrip())
        end = len(text.rstrip())
        if not spans and start < end and self._specials.is_inside_one(text[start:end]):
            return [(start, end)]
        head = start + self._specials.ending_at_start(text[start:end])
        tail = end - self._specials.beginning_at_end(text[start:end])
        first = spans[0][0] if spans else tail
        last = spans[-1][1] if spans else head
        if start < head <= first:
            spans.insert(0, (start, head))
        if last <= tail < end:
            spans.append((tail, end))
        return spans
