"""Hermes, Qwen and many more: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping

from octavo.protocol.tools.asked import Tools
from octavo.protocol.tools.call_object import Calls
from octavo.protocol.tools.grammar import NAME, Around, calls_grammar
from octavo.protocol.tools.objects import ObjectsBody
from octavo.protocol.tools.reader import TextReader

OPENING, CLOSING = "<tool_call>", "</tool_call>"


class Hermes:
    name = "hermes"
    shown_tokens = (OPENING, CLOSING)
    id_length = 24
    example = f'{OPENING}\n{{"name": "NAME", "arguments": {{"ARGUMENT": "VALUE"}}}}\n{CLOSING}'

    def reader(self, names: Collection[str], new_id: Callable[[], str]) -> TextReader:
        calls = Calls(names, new_id)
        return TextReader(
            calls, lambda _: ObjectsBody(calls, end=CLOSING, until=CLOSING), [OPENING]
        )

    def grammar(self, tools: Tools, control: Mapping[str, int]) -> str:
        around = Around(
            before=f'{OPENING}\n{{"name": "{NAME}", "arguments": ',
            after=f"}}\n{CLOSING}",
            between="\n",
        )
        return calls_grammar(tools, around, control)

    def written(self, name: str, arguments: object) -> str:
        call = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
        return f"{OPENING}\n{call}\n{CLOSING}"
