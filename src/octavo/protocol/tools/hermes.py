"""Hermes, Qwen and many more: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`.

SmolLM2 was trained on a list of such objects between the tags: that is read too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from octavo.protocol.tools.call_object import Calls
from octavo.protocol.tools.grammar import NAME, Around
from octavo.protocol.tools.objects import ObjectsBody
from octavo.protocol.tools.reader import TextReader
from octavo.protocol.tools.written import call_text

OPENING, CLOSING = "<tool_call>", "</tool_call>"


class Hermes:
    name = "hermes"
    shown_tokens = (OPENING, CLOSING)
    id_length = None
    around = Around(
        tag=OPENING,
        before=f'\n{{"name": "{NAME}", "arguments": ',
        after=f"}}\n{CLOSING}",
        separator="\n",
    )
    example = f'{OPENING}\n{{"name": "NAME", "arguments": {{"ARGUMENT": "VALUE"}}}}\n{CLOSING}'

    def reader(self, names: Collection[str], new_id: Callable[[], str]) -> TextReader:
        calls = Calls(names, new_id)
        return TextReader(
            calls, lambda _: ObjectsBody(calls, may_be_list=True, end=CLOSING), [OPENING]
        )

    def written(self, name: str, arguments: object) -> str:
        return f"{OPENING}\n{call_text(name, 'arguments', arguments)}\n{CLOSING}"
