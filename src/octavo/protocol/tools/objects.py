"""Calls as JSON objects behind an opening tag: one, or several with separators.

A body of `reader.py`. Small models leave out what ends a call, or write a brace too few: a call
that was begun ends where its arguments do, and arguments that are no JSON go on, as they are
written, to the end tag or the end of the answer.
"""

from __future__ import annotations

from octavo.protocol.tools.call_object import CallObject, Calls
from octavo.protocol.tools.json_scanner import BLANKS
from octavo.protocol.tools.reader import Verdict


class ObjectsBody:
    """`separator` stands between objects ("": there is only one, but in a list), `end` after the
    last, where broken arguments end too; both may be missing. `opened`: the first brace was read.
    """

    def __init__(
        self,
        calls: Calls,
        *,
        separator: str = "",
        end: str = "",
        may_be_list: bool = False,
        opened: bool = False,
    ) -> None:
        self.unread = 0
        self._calls = calls
        self._separator = separator
        self._end = end
        self._may_be_list = may_be_list
        self._in_list = False
        self._ended = ""  # how much of `end` was there
        self._object: CallObject | None = None
        self._broken: BrokenArguments | None = None
        self._since = 0  # characters since the last call
        self._count = 0
        if opened:
            self._object = CallObject(calls)
            self._object.take("{")

    def take(self, c: str) -> Verdict:
        self._since += 1
        if self._broken is not None:
            return self._take_broken(self._broken, c)
        if self._object is not None:
            return self._take_object(self._object, c)
        if self._ended or (self._count and self._end.startswith(c)):
            return self._take_end(c)
        if c in BLANKS or (self._count and c == self._separator):
            return Verdict.MORE
        if c == "[" and self._may_be_list and not self._count and not self._in_list:
            self._in_list, self._separator = True, ","
            return Verdict.MORE
        if c == "]" and self._in_list and self._count:
            return self._end_list()
        if c == "{" and (self._separator or not self._count):
            self._object = CallObject(self._calls)
            self._object.take(c)
            return Verdict.MORE
        return self._stop()

    def skip(self, text: str, at: int) -> int:
        if self._broken is not None or self._object is None:
            return 0
        length = self._object.skip(text, at)
        self._since += length
        return length

    def finish(self) -> Verdict:
        if self._broken is not None:
            self._broken.finish()
            return Verdict.DONE
        if self._object is not None and self._object.is_begun:
            if self._object.is_whole:
                self._calls.end()
            else:
                self._calls.break_off()
            return Verdict.DONE
        return Verdict.DONE if self._ended else self._stop()

    def _take_object(self, call: CallObject, c: str) -> Verdict:
        if call.take(c):
            if call.is_done:
                self._end_call()
            return Verdict.MORE
        if not call.is_begun:
            return self._stop()
        if call.is_whole:  # only what is around the arguments is wrong
            self._calls.end()
            self._end_call()
            return self.take(c)
        self._broken = BrokenArguments(self._calls, self._end, inside=True)
        return self._take_broken(self._broken, c)

    def _take_broken(self, broken: BrokenArguments, c: str) -> Verdict:
        return Verdict.DONE if broken.take(c) else Verdict.MORE

    def _end_list(self) -> Verdict:
        self._in_list, self._separator = False, ""
        self._since = 0
        return Verdict.MORE if self._end else Verdict.DONE

    def _take_end(self, c: str) -> Verdict:
        self._ended += c
        if not self._end.startswith(self._ended):
            return self._stop()
        return Verdict.DONE if self._ended == self._end else Verdict.MORE

    def _end_call(self) -> None:
        self._object, self._since = None, 0
        self._count += 1

    def _stop(self) -> Verdict:
        self.unread = self._since
        return Verdict.DONE if self._count else Verdict.NONE


class BrokenArguments:
    """The rest of arguments that are no JSON, to `end` or, without one, to the end of the text.
    `inside` an object, the last brace is that object's."""

    def __init__(self, calls: Calls, end: str, *, inside: bool) -> None:
        self._calls = calls
        self._end = end
        self._outer = "}" if inside else ""
        self._begun = ""  # so much of the end stands
        self._last: list[str] = []  # blanks and braces that may be of what the arguments are in

    def take(self, c: str) -> bool:
        """True: the end was read."""
        if self._end and self._end.startswith(self._begun + c):
            self._begun += c
            if self._begun == self._end:
                self._begun = ""
                self._tell_last()
                self._calls.end()
                return True
            return False
        if self._begun:  # it was none; its first character is not in it again
            self._tell(self._begun)
            self._begun = ""
            return self.take(c)
        if c in BLANKS or c == self._outer:
            self._last.append(c)
        else:
            self._tell(c)
        return False

    def finish(self) -> None:
        if self._begun:
            self._tell(self._begun)
        self._tell_last()
        self._calls.break_off()

    def _tell_last(self) -> None:
        self._calls.arguments("".join(self._last).rstrip(BLANKS).removesuffix(self._outer))

    def _tell(self, text: str) -> None:
        self._calls.arguments("".join(self._last) + text)
        self._last = []
