"""A grammar of a text, and the same inside JSON: what the library accepts of both is the same."""

from __future__ import annotations

import functools
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer

from octavo.errors import GrammarError
from octavo.protocol.responses.json_lark import lark_in_json
from octavo.protocol.responses.json_regex import in_json

ASCII = st.characters(max_codepoint=126)  # Unicode has several letters and blanks
BYTES = LLTokenizer("byte")
PATCH = """\
start: begin hunk+ end  // as editors have it
begin: "*** Begin" LF
end: "*** End" LF?
hunk: "*** File: " name LF (change LF)*
name: /(.+)/
change: ("+" | "-") /(.*)/ -> line
%import common.LF
"""


@functools.cache
def compiled(grammar: str) -> LLMatcher:
    matcher = LLMatcher(BYTES, grammar)
    assert not matcher.is_error(), matcher.get_error()
    return matcher


def accepts(grammar: str, text: str) -> bool:
    matcher = compiled(grammar).deep_copy()
    data = list(text.encode())
    return bool(matcher.try_consume_tokens(data) == len(data) and matcher.is_accepting())


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


@pytest.mark.parametrize(
    "text",
    [
        "*** Begin\n*** File: a\n+x\n*** End\n",
        '*** Begin\n*** File: a "b"\\c\n+\t"\\n"\n-é\n*** File: d\n*** End',
        "*** Begin\n*** End\n",
        "*** Begin\n*** File: \n*** End\n",
        "*** Begin *** File: a\n*** End\n",
        "nothing",
        "",
    ],
)
def test_a_grammar_is_the_same_inside_json(text: str) -> None:
    assert accepts(lark_in_json(PATCH), quoted(text)) == accepts(PATCH, text)


@pytest.mark.parametrize(
    "pattern",
    [
        r'say "[ab]{2,3}"\n?',
        r"(?:a|\\)*ab",
        r"[^\n\x22]+",
        r"\w+\s\d",
        r"[\t\\\]\[-]*x?",
        r"(.*)",
        r"\S.+?b",
    ],
)
@given(st.data())
def test_a_pattern_is_the_same_inside_json(pattern: str, data: st.DataObject) -> None:
    drawn = st.one_of(
        st.from_regex(re.compile(pattern, re.A), fullmatch=True, alphabet=ASCII),
        st.text(alphabet='ab "\\\n\t]x9', max_size=8),
    )
    text = data.draw(drawn)
    expected = re.fullmatch(pattern, text, re.A) is not None
    assert accepts(f"start: {in_json(pattern)}\n", quoted(text)) == expected


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("start: /a/i", "flags 'i'"),
        ("start: /(?=a)b/", "assert"),
        ("start: /(/", "unterminated"),
        ("start: /^a/", "at"),
        ('start: "a".."z"', r"\.\."),
        ('start: "\\n"i', "case-insensitive"),
        ("start: A\n%ignore A", "%ignore"),
        ("start: A\n%import common.SQL", "expected %import"),
        ("start: " + "a " * 40_000, "80,007 characters"),
    ],
)
def test_what_cannot_be_carried_over_is_named(source: str, words: str) -> None:
    with pytest.raises(GrammarError, match=words):
        lark_in_json(source)
