"""Mistral: `[TOOL_CALLS][{"name": …, "arguments": {…}}, …]`, and since 2025 a
`[TOOL_CALLS]name[ARGS]{…}` for each call.

Either is read whatever the template writes; its own is what a grammar makes. Newer models put
`[CALL_ID]` and an id of theirs behind the name: ours is the one that the client gets.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal

from octavo.protocol.tools.call_object import Calls, escaped
from octavo.protocol.tools.grammar import NAME, Around
from octavo.protocol.tools.json_scanner import BLANKS, JsonScanner, Place
from octavo.protocol.tools.objects import BrokenArguments, ObjectsBody
from octavo.protocol.tools.reader import Body, TextReader, Verdict
from octavo.protocol.tools.written import arguments_text, call_text

TAG, ARGUMENTS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
_NAMED = Around(TAG, before=f"{NAME}{ARGUMENTS}", after="")
_LIST = Around(
    TAG, before=f'{{"name": "{NAME}", "arguments": ', after="}", first="[", between=", ", last="]"
)
_LONGEST_ID = 64  # characters of a model's own


class Mistral:
    shown_tokens = (TAG, ARGUMENTS, CALL_ID)
    id_length = 9  # its templates take no others

    def __init__(self, *, named: bool) -> None:
        """`named`: the newer form, with names before the arguments."""
        self._named = named
        self.name = "mistral-args" if named else "mistral"
        self.around = _NAMED if named else _LIST
        arguments = '{"ARGUMENT": "VALUE"}'
        old = f'{TAG}[{{"name": "NAME", "arguments": {arguments}}}]'
        self.example = f"{TAG}NAME{ARGUMENTS}{arguments}" if named else old

    def reader(self, names: Collection[str], new_id: Callable[[], str]) -> TextReader:
        calls = Calls(names, new_id)
        return TextReader(calls, lambda _: _EitherBody(calls), [TAG])

    def written(self, name: str, arguments: object) -> str:
        if self._named:
            return f"{TAG}{name}{ARGUMENTS}{arguments_text(arguments)}"
        return f"{TAG}[{call_text(name, 'arguments', arguments)}]"


class _EitherBody:
    """The form is told by the first character: a list, an object, or else a name."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._body: Body | None = None

    @property
    def unread(self) -> int:
        return self._body.unread if self._body is not None else 0

    def take(self, c: str) -> Verdict:
        if self._body is not None:
            return self._body.take(c)
        if c in BLANKS:
            return Verdict.MORE
        if c == "[":
            self._body = ObjectsBody(self._calls, may_be_list=True)
        elif c == "{":
            self._body = ObjectsBody(self._calls)
        else:
            self._body = _NamedBody(self._calls)
        return self._body.take(c)

    def skip(self, text: str, at: int) -> int:
        return self._body.skip(text, at) if self._body is not None else 0

    def finish(self) -> Verdict:
        return self._body.finish() if self._body is not None else Verdict.NONE


class _NamedBody:
    """`name[ARGS]{…}`; the tag may be missing where the brace follows."""

    def __init__(self, calls: Calls) -> None:
        self.unread = 0
        self._calls = calls
        self._place: Literal["name", "tag", "id", "before", "arguments", "broken"] = "name"
        self._name = ""
        self._tag = ""  # so much of it was there
        self._id_length = 0
        self._scanner = JsonScanner()
        self._broken = BrokenArguments(calls, TAG, inside=False)

    def take(self, c: str) -> Verdict:
        match self._place:
            case "name":
                return self._take_name(c)
            case "tag":
                return self._take_tag(c)
            case "id":
                return self._take_id(c)
            case "before":
                return self._take_before(c)
            case "arguments":
                return self._take_arguments(c)
        return self._take_broken(c)

    def skip(self, text: str, at: int) -> int:
        if self._place != "arguments":
            return 0
        length = self._scanner.plain(text, at)
        self._calls.arguments(text[at : at + length])
        return length

    def finish(self) -> Verdict:
        match self._place:
            case "before":
                self._calls.arguments("{}")
                self._calls.end()
            case "arguments":
                self._calls.break_off()
            case "broken":
                self._broken.finish()
            case _:
                return Verdict.NONE
        return Verdict.DONE

    def _take_name(self, c: str) -> Verdict:
        if c == "{" and self._name.rstrip() in self._calls.names:
            self._begin()
            return self._take_before(c)
        if c == "[":
            self._place, self._tag = "tag", c
            return Verdict.MORE
        self._name += c
        name = self._name.rstrip()
        is_one = any(each.startswith(name) for each in self._calls.names)
        return Verdict.MORE if is_one else Verdict.NONE

    def _take_tag(self, c: str) -> Verdict:
        self._tag += c
        if self._name.rstrip() not in self._calls.names:
            return Verdict.NONE
        if self._tag == ARGUMENTS:
            self._begin()
        elif self._tag == CALL_ID:
            self._place = "id"
        elif not (ARGUMENTS.startswith(self._tag) or CALL_ID.startswith(self._tag)):
            return Verdict.NONE
        return Verdict.MORE

    def _take_id(self, c: str) -> Verdict:
        if c == "[":
            self._place, self._tag = "tag", c
            return Verdict.MORE
        self._id_length += 1
        return Verdict.MORE if c.isalnum() and self._id_length <= _LONGEST_ID else Verdict.NONE

    def _begin(self) -> None:
        self._calls.begin(self._name.rstrip())
        self._place = "before"

    def _take_before(self, c: str) -> Verdict:
        self.unread += 1
        if c in BLANKS:
            return Verdict.MORE
        if c == "{":
            self.unread = 0
            self._place = "arguments"
            return self._take_arguments(c)
        self._calls.arguments("{}")
        self._calls.end()
        return Verdict.DONE

    def _take_arguments(self, c: str) -> Verdict:
        is_text = self._scanner.place is Place.STRING
        if not self._scanner.take(c):
            self._place = "broken"
            return self._take_broken(c)
        self._calls.arguments(escaped(c) if is_text else c)
        if not self._scanner.is_done:
            return Verdict.MORE
        self._calls.end()
        return Verdict.DONE

    def _take_broken(self, c: str) -> Verdict:
        if not self._broken.take(c):
            return Verdict.MORE
        self.unread = len(TAG)  # it opens the next call
        return Verdict.DONE
