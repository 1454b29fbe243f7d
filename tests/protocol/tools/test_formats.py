"""Which format a template stands for, and what a request becomes for templates without tools."""

from __future__ import annotations

import json
from typing import Any

import pytest

from octavo.errors import UsageError
from octavo.protocol.answer import collect
from octavo.protocol.tools.asked import Tool, Tools
from octavo.protocol.tools.formats import FORMATS, tool_format_of
from tests.protocol.tools.calls import events, reader

LOOP = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"
TOLD = "{% if tools %}{{ tools | tojson }}{% endif %}" + LOOP
TEMPLATES = [
    (None, "hermes-wrapper"),
    (LOOP, "hermes-wrapper"),
    (LOOP + "<tool_call>", "hermes-wrapper"),
    (LOOP + "{{ 'tools [TOOL_CALLS]' }}", "hermes-wrapper"),
    (TOLD, "hermes-wrapper"),
    (TOLD + "<tool_call>", "hermes"),
    (TOLD + "<tool_call><function=", "hermes-wrapper"),
    (TOLD + "<tool_call><arg_key>", "hermes-wrapper"),
    (TOLD + "<tool_call><tool_sep>", "hermes-wrapper"),
    (TOLD + "[TOOL_CALLS]", "mistral"),
    (TOLD + "[TOOL_CALLS]f[ARGS]", "mistral-args"),
    (TOLD + '<|start_header_id|>{"name": "", "parameters": ', "llama3"),
    (TOLD + '"parameters": ', "hermes-wrapper"),
    (TOLD + "<|start|><|channel|>", "harmony"),
    (LOOP + "<|start|><|channel|>", "harmony-wrapper"),
    (TOLD + "<|start|>", "hermes-wrapper"),
    ("{% if tools %}{% endif <tool_call>", "hermes-wrapper"),
    ("{% if b %}{% set tools = none %}{% endif %}{% if tools %}<tool_call>{% endif %}", "hermes"),
]


@pytest.mark.parametrize(("template", "name"), TEMPLATES)
def test_the_template_says_which(template: str | None, name: str) -> None:
    assert tool_format_of(template).name == name


def test_a_form_that_nobody_here_reads_is_told_from_a_template_without_tools() -> None:
    foreign = [tool_format_of(each).is_foreign for each in (TOLD, TOLD + "<tool_call><arg_key>")]
    assert foreign == [True, True]
    known = [tool_format_of(each).is_foreign for each in (None, LOOP, TOLD + "<tool_call>")]
    assert known == [False, False, False]
    assert not tool_format_of(TOLD, "hermes").is_foreign


def test_a_format_can_be_forced() -> None:
    assert {tool_format_of(TOLD, form).name for form in FORMATS} == set(FORMATS)
    assert tool_format_of(LOOP, "llama3").name == "llama3-wrapper"
    with pytest.raises(UsageError) as caught:
        tool_format_of(TOLD, "llama")
    assert str(caught.value) == "unknown tool format 'llama'; did you mean llama3?"
    with pytest.raises(UsageError, match=r"tool format 'hermes': the chat template is Harmony's"):
        tool_format_of(TOLD + "<|start|><|channel|>", "hermes")


def test_ids_are_those_that_templates_take_back() -> None:
    ids = [tool_format_of(None, form).new_id() for form in FORMATS]
    assert [len(each) for each in ids] == [29, 29, 9, 9, 29]
    assert all(each.replace("call_", "").isalnum() for each in ids)
    assert len({tool_format_of(None).new_id() for _ in range(99)}) == 99


USER = {"role": "user", "content": "hi"}
CALLS = [
    {"id": "1", "type": "function", "function": {"name": "add", "arguments": {"a": "é"}}},
    {"id": "2", "type": "function", "function": {"name": "get_time", "arguments": {}}},
]
TURNS: list[dict[str, Any]] = [
    USER,
    {"role": "assistant", "content": None, "tool_calls": CALLS},
    {"role": "tool", "content": "2", "tool_call_id": "1"},
    {"role": "tool", "content": "noon", "tool_call_id": "2"},
    {"role": "assistant", "content": "So.", "tool_calls": CALLS[1:]},
    {"role": "tool", "content": "one", "tool_call_id": "2"},
    USER,
]
TOOLS = Tools((Tool("add", "Adds é"), Tool("get_time")))


def test_a_template_with_tools_is_told_of_them() -> None:
    format = tool_format_of(TOLD + "<tool_call>")
    assert format.prepare(TURNS, TOOLS) == (TURNS, [t.for_template() for t in TOOLS.every])
    assert format.prepare(TURNS, Tools(TOOLS.every, "none")) == (TURNS, None)
    assert format.prepare(TURNS, None) == (TURNS, None)


def test_ids_of_another_model_become_such_as_the_template_takes() -> None:
    format = tool_format_of(TOLD + "[TOOL_CALLS]")
    turns = [TURNS[1], *TURNS[2:4], {"role": "tool", "content": "", "tool_call_id": "aB3456789"}]
    found = format.prepare(turns, TOOLS)[0]
    ids = [call["id"] for call in found[0]["tool_calls"]]
    assert [message["tool_call_id"] for message in found[1:]] == [*ids, "aB3456789"]
    assert [len(each) for each in ids] == [9, 9]
    assert len(set(ids)) == 2
    assert all(each.isalnum() for each in ids)
    assert found == format.prepare(turns, TOOLS)[0], "the same each time: it is found in the cache"
    assert turns[0]["tool_calls"] == CALLS


def test_for_one_without_everything_becomes_text_of_messages() -> None:
    format = tool_format_of(LOOP)
    messages, told = format.prepare(TURNS, TOOLS)
    assert told is None
    assert [message["role"] for message in messages] == [
        *("system", "user", "assistant", "user", "assistant", "user", "user"),
    ]
    assert messages[0]["content"] == format.system_text(TOOLS)
    assert [message["content"] for message in messages[1:]] == [
        "hi",
        '<tool_call>\n{"name": "add", "arguments": {"a": "é"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>',
        "<tool_response>\n2\n</tool_response>\n<tool_response>\nnoon\n</tool_response>",
        'So.\n<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>',
        "<tool_response>\none\n</tool_response>",
        "hi",
    ]
    assert all("tool_calls" not in message for message in messages)
    assert TURNS[1]["tool_calls"] == CALLS, "what was given stays as it was"


def test_the_system_message_is_kept_and_says_what_there_is() -> None:
    format = tool_format_of(LOOP)
    system = {"role": "system", "content": "Be brief."}
    found = format.prepare([system, USER], TOOLS)[0]
    text = format.system_text(TOOLS)
    assert found == [{**system, "content": f"Be brief.\n\n{text}"}, USER]
    assert [json.loads(line) for line in text.splitlines() if line.startswith('{"type"')] == [
        tool.for_template() for tool in TOOLS.every
    ]
    for tools in (None, Tools(TOOLS.every, "none")):
        assert format.prepare([system, USER], tools)[0] == [system, USER]


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_written_for_a_model_is_what_is_read_from_one(form: str) -> None:
    format = tool_format_of(LOOP, form)
    written = format.dialect.written("add", {"a": 'é"'})
    found = collect(events(reader(form), list(written)))
    assert [(call.name, json.loads(call.arguments)) for call in found.calls] == [
        ("add", {"a": 'é"'})
    ]
    broken = format.dialect.written("add", '{"a": ')
    assert written.replace('{"a": "é\\""}', '{"a": ') == broken
    assert format.dialect.example in format.system_text(TOOLS)
