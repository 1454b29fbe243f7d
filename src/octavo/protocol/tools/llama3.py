"""Llama 3: an answer that is `{"name": …, "parameters": {…}}`, or such behind `<|python_tag|>`.

Without the tag only what an answer begins with may be a call; further on it is text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping

from octavo.protocol.tools.asked import Tools
from octavo.protocol.tools.call_object import Calls
from octavo.protocol.tools.grammar import NAME, Around, calls_grammar
from octavo.protocol.tools.objects import ObjectsBody
from octavo.protocol.tools.reader import TextReader

TAG = "<|python_tag|>"


class Llama3:
    name = "llama3"
    shown_tokens = (TAG,)
    id_length = 24
    example = '{"name": "NAME", "parameters": {"ARGUMENT": "VALUE"}}'

    def reader(self, names: Collection[str], new_id: Callable[[], str]) -> TextReader:
        calls = Calls(names, new_id)
        return TextReader(
            calls,
            lambda tag: ObjectsBody(calls, separator=";", opened=tag == "{"),
            [TAG],
            first=["{"],
        )

    def grammar(self, tools: Tools, control: Mapping[str, int]) -> str:
        around = Around(before=f'{{"name": "{NAME}", "parameters": ', after="}", several=False)
        return calls_grammar(tools, around, control)

    def written(self, name: str, arguments: object) -> str:
        return json.dumps({"name": name, "parameters": arguments}, ensure_ascii=False)
