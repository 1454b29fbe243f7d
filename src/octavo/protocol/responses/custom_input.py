"""What a custom tool is given: free text, which models write as a call with one argument.

Comes in: the arguments of such a call, a JSON object `{"input": "…"}`, in pieces. Goes out: the
text in it, in pieces; joined they are the same however the JSON was cut. Arguments of any other
shape are handed on as they are. Knows no events.
"""

from __future__ import annotations

import json
import re

ARGUMENT = "input"
_OPENING = re.compile(rf'\s*\{{\s*"{ARGUMENT}"\s*:\s*"')
_PLAIN = re.compile(r'[^"\\]+')
_SURROGATE_PAIR = 12  # characters: \ud83d\ude00
_ESCAPE = 6  # \u0041


class CustomInput:
    def __init__(self) -> None:
        self._held = ""  # not told yet
        self._is_inside = False
        self._is_ended = False

    def push(self, arguments: str) -> str:
        if self._is_ended:
            return ""
        self._held += arguments
        if not self._is_inside:
            opening = _OPENING.match(self._held)
            if opening is None:
                return ""
            self._held = self._held[opening.end() :]
            self._is_inside = True
        return self._read()

    def finish(self) -> str:
        """What is left: of another shape all of it; a broken escape is nothing."""
        if self._is_inside:
            return ""
        held, self._held = self._held, ""
        return held

    def _read(self) -> str:
        found = []
        at, text = 0, self._held
        while at < len(text):
            if plain := _PLAIN.match(text, at):
                found.append(plain[0])
                at = plain.end()
            elif text[at] == '"':
                self._is_ended = True
                break
            else:
                length = _length_of_escape(text, at)
                if length is None:
                    break
                found.append(_unescaped(text[at : at + length]))
                at += length
        self._held = text[at:]
        return "".join(found)


def _length_of_escape(text: str, at: int) -> int | None:
    """How long the escape at `at` is; None: more is needed to say so."""
    if at + 1 >= len(text):
        return None
    if text[at + 1] != "u":
        return 2
    if at + _ESCAPE > len(text):
        return None
    if text[at + 2] not in "dD" or text[at + 3] not in "89abAB":
        return _ESCAPE
    follows = text[at + _ESCAPE : at + _SURROGATE_PAIR]
    if not "\\u".startswith(follows[:2]):
        return _ESCAPE
    return _SURROGATE_PAIR if len(follows) == _ESCAPE else None


def _unescaped(escape: str) -> str:
    try:
        read = str(json.loads(f'"{escape}"'))
    except ValueError:
        return escape
    return read.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
