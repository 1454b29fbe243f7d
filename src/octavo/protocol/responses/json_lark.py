"""A Lark grammar of a text as a grammar of the same text inside a JSON string.

Comes in: what a custom tool's text has to be. Goes out: the same rules, in which every literal and
regular expression matches its text as JSON escapes it; terminals become rules too. What cannot be
carried over is refused with its words. Compiles nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import MappingProxyType

from octavo.errors import GrammarError
from octavo.grammar.spec import MAX_BYTES
from octavo.protocol.responses.json_regex import escaped, in_json

_TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*|\#[^\n]*)
    |(?P<string>"(?:[^"\\\n]|\\.)*"i?)
    |(?P<regex>/(?![/*])(?:[^/\\\n]|\\.)+/[a-z]*)
    |(?P<import>%import[^\n]*)
    |(?P<other>%\w+|\.\.|[^"/%\#.]+|.)""",
    re.X | re.S,
)
_TERMINAL = re.compile(r"\b_?[A-Z][A-Z_0-9]*\b")
_IMPORT = re.compile(r"%import\s+common\.(\w+)\s*(?:->\s*(\w+)\s*)?(?://.*)?")
# What Lark's own library of terminals has.
_COMMON: Mapping[str, str] = MappingProxyType(
    {
        **{"DIGIT": "[0-9]", "HEXDIGIT": "[0-9a-fA-F]", "INT": "[0-9]+"},
        **{"SIGNED_INT": "[+-]?[0-9]+", "NUMBER": r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?"},
        **{"LCASE_LETTER": "[a-z]", "UCASE_LETTER": "[A-Z]", "LETTER": "[a-zA-Z]"},
        **{"WORD": "[a-zA-Z]+", "CNAME": "[a-zA-Z_][a-zA-Z_0-9]*"},
        **{"WS_INLINE": r"[ \t]+", "WS": r"[ \t\f\r\n]+"},
        **{"CR": r"\r", "LF": r"\n", "NEWLINE": r"(\r?\n)+"},
        "ESCAPED_STRING": r'"([^"\\\n]|\\[^\n])*"',
    }
)


def lark_in_json(source: str) -> str:
    """Raises GrammarError."""
    if len(source) > MAX_BYTES:
        raise GrammarError(f"a grammar of {len(source):,} characters: at most {MAX_BYTES:,}")
    parts = []
    at = 0
    while found := _TOKEN.match(source, at):
        at = found.end()
        kind, text = str(found.lastgroup), found[0]
        parts.append(_translated(kind, text))
    return "".join(parts)


def _translated(kind: str, text: str) -> str:
    match kind:
        case "comment":
            return ""
        case "string":
            return _string(text)
        case "regex":
            body, _, flags = text[1:].rpartition("/")
            return in_json(body.replace(r"\/", "/"), flags)
        case "import":
            return _import(text)
    if text == ".." or text.startswith("%"):
        raise GrammarError(f"{text} is not supported in a Lark grammar of a tool")
    return _TERMINAL.sub(lambda found: _rule(found[0]), text)


def _rule(terminal: str) -> str:
    return f"terminal_{terminal.lower()}"


def _string(literal: str) -> str:
    flag = "i" if literal.endswith("i") else ""
    try:
        text = str(json.loads(literal.removesuffix("i"), strict=False))
    except ValueError:
        raise GrammarError(f"{literal}: its escapes are not those of JSON") from None
    if flag and escaped(text) != json.dumps(text, ensure_ascii=False):
        raise GrammarError(f"{literal}: no literal with escapes may be case-insensitive")
    return escaped(text) + flag


def _import(line: str) -> str:
    found = _IMPORT.fullmatch(line)
    if found is None or found[1] not in _COMMON:
        known = ", ".join(_COMMON)
        raise GrammarError(f"{line.strip()}: expected %import common.NAME, one of {known}")
    return f"{_rule(found[2] or found[1])}: {in_json(_COMMON[found[1]])}"
