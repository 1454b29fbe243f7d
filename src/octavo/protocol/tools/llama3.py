"""Llama 3: an answer that is `{"name": …, "parameters": {…}}`, or such behind `<|python_tag|>`.

Without the tag only what an answer begins with may be a call; further on it is text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from octavo.protocol.tools.call_object import Calls
from octavo.protocol.tools.grammar import NAME, Around
from octavo.protocol.tools.objects import ObjectsBody
from octavo.protocol.tools.reader import TextReader
from octavo.protocol.tools.written import call_text

TAG = "<|python_tag|>"


class Llama3:
    name = "llama3"
    shown_tokens = (TAG,)
    id_length = None
    around = Around("", before=f'{{"name": "{NAME}", "parameters": ', after="}", several=False)
    example = '{"name": "NAME", "parameters": {"ARGUMENT": "VALUE"}}'

    def reader(self, names: Collection[str], new_id: Callable[[], str]) -> TextReader:
        calls = Calls(names, new_id)
        return TextReader(
            calls,
            lambda tag: ObjectsBody(calls, separator=";", opened=tag == "{"),
            [TAG],
            first=["{"],
        )

    def written(self, name: str, arguments: object) -> str:
        return call_text(name, "parameters", arguments)
