"""An answer in channels, as events: the same however its text was cut."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from octavo.protocol.answer import (
    AnswerReader,
    Call,
    CallArguments,
    CallBegin,
    CallEnd,
    Event,
    Reasoning,
    Text,
    collect,
)
from octavo.protocol.tools.asked import Tool, Tools
from octavo.protocol.tools.formats import ToolFormat
from octavo.protocol.tools.harmony.dialect import Harmony
from octavo.protocol.tools.harmony.header import TAGS, Short, read_header
from tests.protocol.tools.calls import TOOLS, events

ANALYSIS, FINAL = "<|channel|>analysis<|message|>", "<|channel|>final<|message|>"
COMMENTARY, NEXT = "<|channel|>commentary<|message|>", "<|end|><|start|>assistant"
ADD = "<|channel|>commentary to=functions.add <|constrain|>json<|message|>"
TIME = " to=functions.get_time<|channel|>commentary json<|message|>"
ARGUMENTS = '{"a": "\\u00e9<|end|>\\"}", "b": [1.5, {}]}'
WHOLE = (
    f"{ANALYSIS}Hm.{NEXT}{COMMENTARY}I look.{NEXT}{ADD}{ARGUMENTS}<|call|>"
    f"<|start|>assistant{TIME}{{}}<|call|><|start|>assistant{FINAL}So."
)
CALLS: list[Event] = [
    CallBegin(0, "id1", "add"), CallArguments(0, ARGUMENTS), CallEnd(0),
    CallBegin(1, "id2", "get_time"), CallArguments(1, "{}"), CallEnd(1),
]  # fmt: skip
PIECES = [
    *TAGS, "assistant", "user", "analysis", "final", "commentary", "other", " to=", "to=",
    *("functions.add", "functions.", "python", " ", "json", "\n", '{"a": ', '"x"', "}", "<", "<|"),
    *(ANALYSIS, FINAL, COMMENTARY, NEXT, ADD, TIME, ARGUMENTS, "é🦜", "t"),
]  # fmt: skip


def reader(tools: Tools | None = TOOLS, **how: Any) -> AnswerReader:
    count = itertools.count(1)
    return AnswerReader(ToolFormat(Harmony(**how)), None, tools, lambda: f"id{next(count)}")


def read(text: str, tools: Tools | None = TOOLS, **how: Any) -> list[Event]:
    """The events of a text as a whole; those of each character are the same."""
    found = events(reader(tools, **how), [text])
    assert events(reader(tools, **how), text) == found
    return found


@st.composite
def cut_texts(draw: st.DrawFn) -> tuple[str, list[str]]:
    """Something like an answer: parts of one are taken out, and others put in; and pieces of it."""
    text = draw(st.just(WHOLE) | st.lists(st.sampled_from(PIECES)).map("".join))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        instead = draw(st.just("") | st.sampled_from(PIECES))
        text = text[:at] + instead + text[at + draw(st.integers(0, 3)) :]
    marks = sorted(draw(st.sets(st.integers(0, len(text)), max_size=8)))
    ends = zip([0, *marks], [*marks, len(text)], strict=True)
    return text, [text[start:end] for start, end in ends]


@given(cut_texts(), st.sampled_from([None, "analysis", "final"]), st.booleans(), st.booleans())
@example((WHOLE, list(WHOLE)), None, False, True)
def test_the_events_are_the_same_however_the_text_was_cut(
    cut: tuple[str, list[str]], opened: str | None, inline: bool, parallel: bool
) -> None:
    text, pieces = cut
    tools = Tools(TOOLS.every, parallel=parallel)
    whole = read(text, tools, opened=opened, inline=inline)
    assert events(reader(tools, opened=opened, inline=inline), pieces) == whole


@given(cut_texts(), st.sampled_from([None, TOOLS]))
def test_what_is_in_no_header_is_told(cut: tuple[str, list[str]], tools: Tools | None) -> None:
    text = cut[0].replace("\\u00e9", "🦜")
    told = "".join(_said(event) for event in read(text, tools))
    assert told.count("🦜") == text.count("🦜")


def _said(event: Event) -> str:
    return event.text if isinstance(event, Text | Reasoning | CallArguments) else ""


def test_all_of_it_at_once() -> None:
    assert read(WHOLE) == [Reasoning("Hm."), Text("I look."), *CALLS, Text("\nSo.")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"{FINAL}Hi.", [Text("Hi.")]),
        (f"{ANALYSIS}Hm.{NEXT}{FINAL}Hi.<|return|>", [Reasoning("Hm."), Text("Hi.")]),
        (f"<|start|>assistant{ANALYSIS}Hm.{NEXT}{FINAL}Hi.", [Reasoning("Hm."), Text("Hi.")]),
        (f"{ANALYSIS} a \n{NEXT}{ANALYSIS}b{NEXT}{FINAL}\nc\n",
         [Reasoning(" a \n\nb"), Text("\nc\n")]),
        ("<|channel|>final <|constrain|>JSON<|message|>{}", [Text("{}")]),
        (f"{FINAL}<|end|>", []),
        ("", []),
    ],
)  # fmt: skip
def test_analysis_is_reasoning_and_final_text(text: str, found: list[Event]) -> None:
    assert read(text) == found


def test_an_answer_that_is_cut_is_told_as_far_as_it_came() -> None:
    """Its tags are tokens, which nothing cuts."""
    tokens = [each for each in re.split(rf"({'|'.join(map(re.escape, TAGS))})|", WHOLE) if each]
    assert "".join(tokens) == WHOLE
    texts, reasonings, arguments = set(), set(), set()
    for end in range(len(tokens)):
        found = collect(read("".join(tokens[:end])))
        texts.add(found.content or "")
        reasonings.add(found.reasoning or "")
        arguments |= {(call.name, call.arguments, call.is_broken) for call in found.calls}
    said = "I look.\nSo."
    assert texts == {said[:end] for end in range(len(said)) if end != len("I look.\n")}
    assert reasonings == {"", "H", "Hm", "Hm."}
    whole = {("add", ARGUMENTS, False), ("add", "{}", False), ("get_time", "{}", False)}
    assert {call for call in arguments if not call[2]} == whole
    broken = {told for name, told, is_broken in arguments if is_broken and name == "add"}
    assert broken < {ARGUMENTS[:end] for end in range(len(ARGUMENTS))}


def test_what_the_limit_cuts() -> None:
    assert read(f"{ANALYSIS}Hm") == [Reasoning("Hm")]
    assert read(f"{ANALYSIS}Hm.<|end|>") == [Reasoning("Hm.")]
    assert read(f"{ANALYSIS}Hm.{NEXT}<|channel|>fin") == [Reasoning("Hm.")]
    assert read("<|channel|>ana") == []
    begun = [CallBegin(0, "id1", "add")]
    assert read(f'{ADD}{{"a": "x') == [*begun, CallArguments(0, '{"a": "x'), CallEnd(0, True)]
    assert read(ADD) == [*begun, CallArguments(0, "{}"), CallEnd(0)]
    assert read(f"{ADD}{{}}") == [*begun, CallArguments(0, "{}"), CallEnd(0)]


@pytest.mark.parametrize(
    "text",
    ["Hi.", " to", "t", "\n", "<|chan", "<|channel|>final", "<|channel|>final!<|message|>x",
     "to=functions.add<|x|>", "<|start|>user<|message|>x", f"a {ANALYSIS}b", "<|message|>x",
     "<|channel|>final a b c d e<|message|>x", f"<|channel|>{'x' * 600}<|message|>y",
     f"<|channel|>final{' ' * 600}<|message|>y", "<|channel|>final to=a to=b<|message|>x"],
)  # fmt: skip
def test_what_only_looks_like_a_header_is_text(text: str) -> None:
    told = [] if text == "<|channel|>final" else [Text(text)]
    assert read(text) == told
    assert read(f"{FINAL}x{NEXT[:7]}{text}") != [Text("x")] or not told
    assert read(text, opened="final") == [Text(text)]


@pytest.mark.parametrize(
    "text", ["x<|end|>y", f"x<|end|>{ANALYSIS}y", "x<|end|><|end|>y", "x<|call|> <|start|>user"]
)
def test_an_end_that_no_header_follows_is_text(text: str) -> None:
    assert read(f"{FINAL}{text}") == [Text(text)]
    assert read(f"{ANALYSIS}{text}{NEXT}{FINAL}z") == [Reasoning(text), Text("z")]


@pytest.mark.parametrize(
    "header",
    [ADD.replace("add", "sub"), "<|channel|>x<|message|>",
     "<|channel|>analysis to=python code<|message|>",
     " to=browser.open<|channel|>final<|message|>"],
)  # fmt: skip
def test_a_message_for_somebody_else_is_text_with_its_header(header: str) -> None:
    assert read(f"{header}{{}}<|call|>") == [Text(f"{header}{{}}")]
    found = read(f"{ANALYSIS}Hm.{NEXT}{header}{{}}<|end|><|start|>assistant{FINAL}So.")
    assert found == [Reasoning("Hm."), Text(f"{header}{{}}\nSo.")]


def test_without_tools_a_call_is_text() -> None:
    for tools in (None, Tools(TOOLS.every, "none")):
        assert read(f"{ADD}{{}}", tools) == [Text(f"{ADD}{{}}")]


@pytest.mark.parametrize(
    "header",
    [ADD, ADD.replace("<|constrain|>", ""), ADD.replace("commentary", "analysis"),
     "<|channel|>commentary to=functions.add<|message|>", TIME.replace("get_time", "add"),
     " to=functions.add<|channel|>commentary <|constrain|>json<|message|>"],
)  # fmt: skip
def test_a_call_in_every_form(header: str) -> None:
    whole = [CallBegin(0, "id1", "add"), CallArguments(0, ARGUMENTS), CallEnd(0)]
    for text in (f"{header}{ARGUMENTS}", f"{header}\n{ARGUMENTS}\n<|call|>"):
        assert read(text) == whole
    assert read(f"{FINAL}x{NEXT}{header}{ARGUMENTS}") == [Text("x"), *whole]


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=8) | st.integers(), max_size=3),
       st.booleans(), st.sampled_from([None, 2]))  # fmt: skip
def test_arguments_come_out_as_they_were_written(
    arguments: dict[str, object], ascii: bool, indent: int | None
) -> None:
    text = json.dumps(arguments, ensure_ascii=ascii, indent=indent)
    assert collect(read(f"{ADD}{text}<|call|>")).calls == (Call("id1", "add", text),)


@pytest.mark.parametrize(
    ("written", "arguments", "is_broken"),
    [("{'a': 1}<|call|>", "{'a': 1}", False), ("{'a': 1} \n<|end|>", "{'a': 1}", False),
     ("{'a': 1}", "{'a': 1}", True), ('"x" y', '"x" y', True), ("[1]<|call|>", "[1]", False),
     ("", "{}", False), ("\n<|call|>", "{}", False), ('{"a": "<|end|>', '{"a": "<|end|>', True),
     ('{"a": <|call|>', '{"a": ', False), ("{<|en", "{<|en", True)],
)  # fmt: skip
def test_arguments_that_are_no_json(written: str, arguments: str, is_broken: bool) -> None:
    (call,) = collect(read(ADD + written)).calls
    assert call == Call("id1", "add", arguments, is_broken)


def test_text_behind_arguments_is_text() -> None:
    found = read(f"{ADD}{{}} }}x<|end|><|start|>assistant{FINAL}y")
    assert found == [
        CallBegin(0, "id1", "add"), CallArguments(0, "{}"), CallEnd(0), Text("}x\ny"),
    ]  # fmt: skip


def test_a_bare_line_break_in_a_string_gets_its_escape() -> None:
    (call,) = collect(read(f'{ADD}{{"a": "x\ny"}}')).calls
    assert json.loads(call.arguments) == {"a": "x\ny"}


def test_only_the_first_call_where_one_is_allowed() -> None:
    found = read(WHOLE, Tools(TOOLS.every, parallel=False))
    assert found == [Reasoning("Hm."), Text("I look."), *CALLS[:3], Text("\nSo.")]


def test_the_prompt_may_end_in_a_message() -> None:
    assert read(f"a{NEXT}{FINAL}b", opened="analysis") == [Reasoning("a"), Text("b")]
    assert read(f"a{NEXT}{ADD}{{}}", opened="final") == [
        Text("a"), CallBegin(0, "id1", "add"), CallArguments(0, "{}"), CallEnd(0),
    ]  # fmt: skip


def test_inline_reasoning_stands_between_tags() -> None:
    text = f"{ANALYSIS}Hm.{NEXT}{FINAL}So."
    assert read(text, inline=True) == [Text("<think>\nHm.\n</think>\n\nSo.")]
    assert read(f"{ANALYSIS}Hm", inline=True) == [Text("<think>\nHm")]
    assert read(f"{ANALYSIS}Hm.{NEXT}{ADD}{{}}", inline=True) == [
        Text("<think>\nHm.\n</think>\n\n"),
        CallBegin(0, "id1", "add"), CallArguments(0, "{}"), CallEnd(0),
    ]  # fmt: skip
    both = f"{COMMENTARY}I look.{NEXT}{text}"
    assert read(both, inline=True) == [Text("I look.\n<think>\nHm.\n</think>\n\nSo.")]
    assert read(f"{ANALYSIS}{NEXT}{FINAL}So.", inline=True) == [Text("So.")]


def test_a_name_may_be_the_beginning_of_another() -> None:
    tools = Tools((Tool("add"), Tool("add.more")))
    (call,) = collect(read(ADD.replace("add", "add.more") + "{}", tools)).calls
    assert call.name == "add.more"


def test_a_header_is_read_from_as_little_as_tells_it() -> None:
    for text in (ADD, TIME, ANALYSIS, FINAL):
        found = read_header(text, begun=True)
        assert found is not None
        assert found.length == len(text)
        for end in range(len(text)):
            with pytest.raises(Short):
                read_header(text[:end], begun=True)
        assert read_header(f"{text}x", begun=False) is None
