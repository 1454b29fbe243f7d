"""An answer's events do not depend on how its text was cut, and together they are the answer."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from octavo.protocol.answer import (
    Answer,
    Call,
    CallArguments,
    CallBegin,
    CallEnd,
    Event,
    Reasoning,
    Text,
    collect,
    joined,
)
from octavo.protocol.reasoning import Begun, ReasoningFormat
from octavo.protocol.tools.asked import Tools
from octavo.protocol.tools.formats import FORMATS
from tests.protocol.tools.calls import TOOLS, events, reader

THINK = ReasoningFormat("<think>", "</think>")
PIECES = [
    *("<tool_call>", "</tool_call>", "<|python_tag|>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"),
    *("<think>", "</think>", '{"name": "add", ', '"arguments": ', '"parameters": ', "add"),
    *('{"a": "b\\"}', '\\u00e9\\\\"', '"', "{", "}", "[", "]", ",", ";", "1.5", "\n", " ", "é🦜"),
    *('{"name": "get_time"}', '"{\\"a\\": 1}"', '{"a": "</tool_call>"}', "null", "<", "x"),
]
CALL = '{"name": "add", "arguments": {"a": "\\u00e9\\"}", "b": [1.5, {}]}}'
WHOLE = (
    f"<think>\nHm.\n</think>\n\nSo: <tool_call>\n{CALL}\n</tool_call>\n"
    '<tool_call>{"name": "get_time"}</tool_call>'
)
BASES = [
    WHOLE,
    f"<tool_call>{CALL}</tool_call> and {CALL}",
    f"{CALL}; {CALL}<|python_tag|>{CALL}",
    f"a [TOOL_CALLS] [{CALL}, {CALL}]",
    '[TOOL_CALLS]add[CALL_ID]a1[ARGS]{"a": "}"}[TOOL_CALLS]get_time[ARGS]',
]


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Something like an answer: parts of one are taken out, and others put in."""
    text = draw(st.sampled_from(BASES) | st.lists(st.sampled_from(PIECES)).map("".join))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        instead = draw(st.just("") | st.sampled_from(PIECES))
        text = text[:at] + instead + text[at + draw(st.integers(0, 3)) :]
    return text


TEXTS = texts()
FORMS = st.sampled_from([None, *FORMATS])
REASONING = st.sampled_from(
    [
        None,
        *(ReasoningFormat("<think>", "</think>", begun) for begun in ("no", "opened", "closed")),
        ReasoningFormat("<think>", "</think>", inline=True),
        ReasoningFormat("<think>", "</think>", "opened", inline=True),
    ]
)


@st.composite
def cut_texts(draw: st.DrawFn) -> tuple[str, list[str]]:
    text = draw(TEXTS)
    marks = sorted(draw(st.sets(st.integers(0, len(text)), max_size=8)))
    ends = zip([0, *marks], [*marks, len(text)], strict=True)
    return text, [text[start:end] for start, end in ends]


@given(cut_texts(), FORMS, REASONING, st.booleans())
@example((WHOLE, list(WHOLE)), "hermes", THINK, True)
@example((BASES[2], list(BASES[2])), "llama3", None, False)
def test_the_events_are_the_same_however_the_text_was_cut(
    cut: tuple[str, list[str]], form: str | None, reasoning: ReasoningFormat | None, parallel: bool
) -> None:
    text, pieces = cut
    tools = Tools(TOOLS.every, parallel=parallel)

    def read(pieces: list[str]) -> object:
        return events(reader(form, tools=tools, reasoning=reasoning), pieces)

    whole = read([text])
    assert read(pieces) == whole
    assert read(list(text)) == whole


@given(TEXTS, FORMS)
def test_without_a_call_every_character_is_text(text: str, form: str | None) -> None:
    found = collect(events(reader(form), [text]))
    assert found.calls or found.content == text


ARGUMENTS = st.dictionaries(st.text(max_size=5), st.text(max_size=8) | st.integers(), max_size=3)


@given(ARGUMENTS, st.booleans(), st.sampled_from([None, 2]))
def test_arguments_come_out_as_they_were_written(
    arguments: dict[str, object], ascii: bool, indent: int | None
) -> None:
    text = json.dumps(arguments, ensure_ascii=ascii, indent=indent)
    written = f'<tool_call>{{"name": "add", "arguments": {text}}}</tool_call>'
    found = collect(events(reader("hermes"), list(written)))
    assert found == Answer(None, None, (Call("id1", "add", text),))


def test_all_of_it_at_once() -> None:
    assert events(reader("hermes", reasoning=THINK), list(WHOLE)) == [
        Reasoning("Hm."),
        Text("So:"),
        CallBegin(0, "id1", "add"),
        CallArguments(0, '{"a": "\\u00e9\\"}", "b": [1.5, {}]}'),
        CallEnd(0),
        CallBegin(1, "id2", "get_time"),
        CallArguments(1, "{}"),
        CallEnd(1),
    ]


def test_a_call_in_reasoning_is_reasoning() -> None:
    call = '<tool_call>{"name": "get_time"}</tool_call>'
    for inline in (False, True):
        format = ReasoningFormat("<think>", "</think>", inline=inline)
        found = events(reader("hermes", reasoning=format), [f"<think>{call}</think>{call}"])
        said = Text(f"<think>{call}</think>") if inline else Reasoning(call)
        assert found == [said, CallBegin(0, "id1", "get_time"), CallArguments(0, "{}"), CallEnd(0)]


@pytest.mark.parametrize(
    ("begun", "text", "reasoning", "content"),
    [
        ("no", "<think>\na\nb </think>\n\nc\n", "a\nb", "c\n"),
        ("no", " \n<think>a</think>", "a", ""),
        ("no", "<think>\n\n</think>\n\nc", None, "c"),
        ("no", "<think> a <", "a <", ""),
        ("no", "<think>a</think", "a</think", ""),
        ("no", "<think>a</think></think>", "a", "</think>"),
        ("no", " a <think>b</think>", None, " a <think>b</think>"),
        ("no", "\n<thin", None, "\n<thin"),
        ("no", " \n", None, " \n"),
        ("no", "a</think>b", None, "a</think>b"),
        ("opened", "\na\n</think>\nb", "a", "b"),
        ("opened", "<think>a</think>b", "a", "b"),
        ("opened", "<thi", "<thi", ""),
        ("opened", " \n", None, ""),
        ("opened", "a ", "a", ""),
        ("closed", "a", None, "a"),
        ("closed", "<think>a</think>b", "a", "b"),
    ],
)
def test_reasoning_is_what_an_answer_begins_with(
    begun: Begun, text: str, reasoning: str | None, content: str
) -> None:
    format = ReasoningFormat("<think>", "</think>", begun)
    found = collect(events(reader(None, reasoning=format), [text]))
    assert (found.reasoning, found.content) == (reasoning, content)


@given(TEXTS, st.sampled_from(["no", "opened", "closed"]))
def test_inline_leaves_the_text_as_it_is(text: str, begun: Begun) -> None:
    format = ReasoningFormat("<think>", "</think>", begun, inline=True)
    assert collect(events(reader(None, reasoning=format), list(text))) == Answer(text, None, ())


def test_an_answer_with_calls_alone_has_no_content() -> None:
    call: list[Event] = [
        CallBegin(0, "a", "f"),
        CallArguments(0, "{"),
        CallArguments(0, "}"),
        CallEnd(0),
    ]
    assert collect(call) == Answer(None, None, (Call("a", "f", "{}"),))
    assert collect([]) == Answer("", None, ())
    more: list[Event] = [CallArguments(1, "x"), Text(""), Text("a"), Text("b")]
    assert joined([*call, *more]) == [
        call[0], CallArguments(0, "{}"), CallEnd(0), CallArguments(1, "x"), Text("ab"),
    ]  # fmt: skip
