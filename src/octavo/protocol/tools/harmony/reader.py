"""An answer in channels, in pieces: text, reasoning, and calls of tools.

Comes in: text with Harmony's tags in it. Goes out: events. Analysis is reasoning; the final message
is text, and so is commentary for nobody; commentary for a function is a call. A message for
somebody else, or in a channel that nobody knows, is text, its header with it, and so is all that
only looks like a header. A header that the end of the answer cuts says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Literal

from octavo.protocol.answer import Event, Reasoning, Text
from octavo.protocol.partial import beginning_at_end
from octavo.protocol.tools.call_object import Calls
from octavo.protocol.tools.harmony.arguments import Arguments
from octavo.protocol.tools.harmony.header import ENDS, TAGS, Channel, Header, Short, read_header
from octavo.protocol.tools.json_scanner import BLANKS

OPENING, CLOSING = "<think>\n", "\n</think>\n\n"  # around reasoning that is left in the text
_BETWEEN = "\n"  # messages of a kind
_END = re.compile("|".join(map(re.escape, ENDS)))
_LONGEST_END = max(map(len, ENDS))

_Kind = Literal["text", "reasoning"]


class ChannelReader:
    def __init__(
        self,
        names: Collection[str],
        new_id: Callable[[], str],
        *,
        opened: Channel | None = None,
        inline: bool = False,
    ) -> None:
        """`opened`: the channel that the prompt ends in."""
        self._calls = Calls(names, new_id)
        self._inline = inline
        self._events: list[Event] = []
        self._held = ""  # not told yet
        self._in_header = opened is None
        self._end = ""  # the tag before a header, which is text if there is none
        self._kind: _Kind = "reasoning" if opened == "analysis" else "text"
        self._arguments: Arguments | None = None  # of the call that is open
        self._told: set[_Kind] = set()  # kinds of which some was
        self._is_new = True  # nothing of this message was told
        self._is_behind_call = False  # and only blanks were

    def push(self, text: str) -> list[Event]:
        self._held += text
        while self._read():
            pass
        return self._take()

    def finish(self) -> list[Event]:
        if self._in_header:
            self._finish_header()
        elif self._arguments is None:
            self._say(self._held)
        else:
            self._take_arguments(self._held)
            self._end_call(is_cut=True)
        self._held = ""
        return self._take()

    def _read(self) -> bool:
        """Go on with what is held; False when more is needed."""
        if self._in_header:
            return self._read_header()
        return self._read_text() if self._arguments is None else self._read_call(self._arguments)

    def _read_header(self) -> bool:
        try:
            header = read_header(self._held, begun=not self._end)
        except Short:
            return False
        if header is not None:
            self._begin(header)
        else:
            self._say(self._end)
        self._in_header, self._end = False, ""
        return True

    def _finish_header(self) -> None:
        """What is held may begin a header: it is none without a whole tag."""
        if self._held and not any(tag in self._held for tag in TAGS):
            self._say(self._end + self._held)
        elif self._end:
            self._close()

    def _begin(self, header: Header) -> None:
        self._close()
        self._is_new, self._is_behind_call = True, False
        is_known = header.channel is not None and header.recipient is None
        self._kind = "reasoning" if is_known and header.channel == "analysis" else "text"
        written = self._held[header.begin : header.length]
        self._held = self._held[header.length :]
        if header.function in self._calls.names:
            assert header.function is not None
            self._calls.begin(header.function)
            self._arguments = Arguments(self._calls)
        elif not is_known:
            self._say(written)

    def _read_text(self) -> bool:
        end = _END.search(self._held)
        if end is None:
            sure = len(self._held) - beginning_at_end(self._held, ENDS)
            self._say(self._held[:sure])
            self._held = self._held[sure:]
            return False
        self._say(self._held[: end.start()])
        self._end_with(end)
        return True

    def _read_call(self, arguments: Arguments) -> bool:
        at = 0
        while at < len(self._held):
            at += arguments.skip(self._held, at)
            if at == len(self._held):
                break
            if not arguments.is_text:
                end = _END.match(self._held, at)
                if end is not None:
                    self._end_call(is_cut=False)
                    self._end_with(end)
                    return True
                if self._held[at] == "<" and _may_begin_end(self._held[at : at + _LONGEST_END]):
                    break
            arguments.take(self._held[at])
            at += 1
            if arguments.is_done:
                self._end_call(is_cut=False)
                self._held = self._held[at:]
                return True
        self._held = self._held[at:]
        self._events += self._calls.take()
        return False

    def _take_arguments(self, text: str) -> None:
        assert self._arguments is not None
        for c in text:
            self._arguments.take(c)

    def _end_call(self, *, is_cut: bool) -> None:
        """What stands behind the arguments in their message is text."""
        assert self._arguments is not None
        self._arguments.end(is_cut=is_cut)
        self._events += self._calls.take()
        self._arguments, self._is_behind_call = None, True

    def _end_with(self, end: re.Match[str]) -> None:
        self._in_header, self._end = True, end.group()
        self._held = self._held[end.end() :]

    def _say(self, text: str) -> None:
        text = text.lstrip(BLANKS) if self._is_behind_call else text
        if not text:
            return
        self._is_behind_call = False
        is_reasoning = self._kind == "reasoning"
        if self._is_new:
            is_more = ("text" if self._inline else self._kind) in self._told
            before = _BETWEEN if is_more else ""
            text = before + (OPENING if is_reasoning and self._inline else "") + text
        self._is_new = False
        self._told.add("text" if self._inline else self._kind)
        self._events.append(Reasoning(text) if is_reasoning and not self._inline else Text(text))

    def _close(self) -> None:
        """The message has ended."""
        if self._inline and self._kind == "reasoning" and not self._is_new:
            self._events.append(Text(CLOSING))
            self._told.discard("text")  # it ends in a line of its own

    def _take(self) -> list[Event]:
        events, self._events = self._events, []
        return events


def _may_begin_end(text: str) -> bool:
    return any(tag.startswith(text) for tag in ENDS)
