"""Calls in what models write, by format: those that are, and texts that only look like one."""

from __future__ import annotations

import pytest

from octavo.protocol.answer import CallArguments, CallBegin, CallEnd, Text
from octavo.protocol.tools.asked import Tool, Tools
from tests.protocol.tools.calls import TOOLS, answer, events, reader, told

ADD, TIME = '{"name": "add", "arguments": {"a": 1}}', '{"name": "get_time", "arguments": {}}'
ONE = [("add", '{"a": 1}')]
TWO = [*ONE, ("get_time", "{}")]


def tagged(inner: str) -> str:
    return f"<tool_call>{inner}</tool_call>"


HERMES = [
    (tagged(ADD), None, ONE),
    (tagged(f"\n{ADD}\n") + "\n" + tagged(TIME), None, TWO),
    (f"Let me see.\n\n{tagged(ADD)}\n", "Let me see.", ONE),
    (f"One.\n{tagged(ADD)}\nTwo. ", "One.\n\nTwo.", ONE),
    (f"\n{tagged(ADD)}\n\nDone", "Done", ONE),
    (tagged('{"name": "get_time"}'), None, [("get_time", "{}")]),
    (tagged('{"name": "get_time", "arguments": null}'), None, [("get_time", "{}")]),
    (tagged('{"name": "get_time", "arguments": ""}'), None, [("get_time", "{}")]),
    (tagged('{"arguments": {"a": [1, {"b": 2}]}, "name": "add"}'), None,
     [("add", '{"a": [1, {"b": 2}]}')]),
    (tagged('{"id": 7, "x": {"name": "y"}, "name": "add", "arguments": {"a": 1}, "z": [1e5]}'),
     None, ONE),
    (tagged('{"n\\u0061me": "\\u0061dd", "parameters": {"a": 1}}'), None, ONE),
    (tagged('{"name": "add", "arguments": "{\\"a\\": 1}"}'), None, ONE),
    (tagged('{"name": "add", "arguments": {"name": "</tool_call>", "}": "\\"}"}}'), None,
     [("add", '{"name": "</tool_call>", "}": "\\"}"}')]),
    (tagged('{"name": "add", "arguments": {"code": "a\n\tb"}}'), None,
     [("add", '{"code": "a\\n\\tb"}')]),
    (tagged(f"[\n{ADD},\n{TIME}\n]") + "\nSo.", "So.", TWO),
    (tagged(f"[{ADD}]"), None, ONE),
    (f"<tool_call>[{ADD}, {TIME}] ", None, TWO),
    (f"<tool_call>[{ADD}] So.", "So.", ONE),
    # what small models leave out
    ('<tool_call>{"name": "add", "arguments": {"a": 1}</tool_call> So.', "So.", ONE),
    ('<tool_call>{"name": "add", "arguments": {"a": 1} So.', "So.", ONE),
    (f"<tool_call>{ADD}\n<tool_call>{TIME}", None, TWO),
    (f"<tool_call>{ADD}</tool", None, ONE),
    (f"<tool_call>{ADD} and", "and", ONE),
    # what was broken off, or is no JSON
    ('<tool_call>{"name": "add", "arguments": {"a": "x', None, [("add", '{"a": "x')]),
    (tagged('{"name": "add", "arguments": {"a": 1, b: \'}"\'}}') + " So.", "So.",
     [("add", '{"a": 1, b: \'}"\'}')]),
    (tagged('{"name": "add", "arguments": {"a": x <</tool_</tool_}} '), None,
     [("add", '{"a": x <</tool_</tool_}')]),
    (tagged('{"name": "add", "arguments": {"a": 1') + tagged(TIME), None,
     [("add", '{"a": 1'), ("get_time", "{}")]),
    # an opening that is none does not hide one that is
    (f"<tool_call> is a tag, <tool_call>{ADD}</tool_call>", "<tool_call> is a tag,", ONE),
    ('<tool_call>{"a": "' + tagged(ADD), '<tool_call>{"a": "', ONE),
    (f"<tool_<tool_call>{ADD}", "<tool_", ONE),
]  # fmt: skip

LLAMA = [
    ('{"name": "add", "parameters": {"a": 1}}', None, ONE),
    (' <|python_tag|>{"name": "add", "parameters": {"a": 1}}', None, ONE),
    ('{"type": "function", "name": "add", "parameters": {"a": 1}}', None, ONE),
    (f"{ADD}; {TIME}", None, TWO),
    (f"{ADD}\n{TIME}", None, TWO),
    (f"<|python_tag|>{ADD}<|python_tag|>{TIME}", None, TWO),
    (f"{ADD} is it", "is it", ONE),
    (f'{ADD}; {{"name": "other"}}', '; {"name": "other"}', ONE),
    ('{"name": "add", "parameters": {"a": x}', None, [("add", '{"a": x')]),
    ("Hm: <|python_tag|>" + ADD, "Hm:", ONE),
]

MISTRAL = [
    (f"[TOOL_CALLS][{ADD}]", None, ONE),
    (f"[TOOL_CALLS] [{ADD}, {TIME}]", None, TWO),
    (f"[TOOL_CALLS] [{ADD}, {TIME}", None, TWO),
    (f"[TOOL_CALLS]{ADD}", None, ONE),
    ('[TOOL_CALLS]add[ARGS]{"a": 1}', None, ONE),
    ('I will.[TOOL_CALLS]add[ARGS]{"a": 1}[TOOL_CALLS]get_time[ARGS]{}', "I will.", TWO),
    ('[TOOL_CALLS]add[CALL_ID]abc123XYZ[ARGS] {"a": 1}', None, ONE),
    ('[TOOL_CALLS] add {"a": 1}', None, ONE),
    ("[TOOL_CALLS]get_time[ARGS]", None, [("get_time", "{}")]),
    ("[TOOL_CALLS]get_time[ARGS] now", "now", [("get_time", "{}")]),
    ('[TOOL_CALLS]add[ARGS]{"a": "\n"}', None, [("add", '{"a": "\\n"}')]),
    ('[TOOL_CALLS]add[ARGS]{"a": x}} [TOOL_CALLS]get_time[ARGS]{}', None,
     [("add", '{"a": x}}'), ("get_time", "{}")]),
    ('[TOOL_CALLS]add[ARGS]{"a', None, [("add", '{"a')]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("form", "text", "content", "calls"),
    [
        *(("hermes", *each) for each in HERMES),
        *(("llama3", *each) for each in LLAMA),
        *((form, *each) for each in MISTRAL for form in ("mistral", "mistral-args")),
    ],
)
def test_calls_are_read(
    form: str, text: str, content: str | None, calls: list[tuple[str, str]]
) -> None:
    assert told(form, text) == (content, calls)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("hermes", ""),
        ("hermes", " blanks stay \n"),
        ("hermes", "<tool_call>"),
        ("hermes", "<tool_ca"),
        ("hermes", tagged(f"[[{ADD}]]")),
        ("hermes", tagged("[]")),
        ("hermes", tagged(f"{{{ADD}}}")),
        ("hermes", tagged('{"name": "other", "arguments": {}}')),
        ("hermes", tagged('{"name": 1, "arguments": {}}')),
        ("hermes", tagged('{"name": "add", "arguments": [1]}')),
        ("hermes", tagged('{"name": "add", "arguments": 1}')),
        ("hermes", tagged('{"name": "add", "arguments": "no JSON"}')),
        ("hermes", tagged('{"name": "add", "arguments": "[1]"}')),
        ("hermes", tagged('{"arguments": {}}')),
        ("hermes", tagged('{"arguments": {}, "name": "other"}')),
        ("hermes", '<tool_call>{"name": "add"'),
        ("hermes", tagged('{"name": "add", "name": "add", "arguments": {}}')),
        ("hermes", ADD),
        ("hermes", f"</tool_call>{ADD}</tool_call>"),
        ("llama3", f"It is {ADD}"),
        ("llama3", '{"name": "Ann", "parameters": {}}'),
        ("llama3", '{"a": {"name": "add"}}'),
        ("llama3", "<|python_tag|>print(1)"),
        ("llama3", "{"),
        ("mistral", f"[{ADD}]"),
        ("mistral", "[TOOL_CALLS]"),
        ("mistral", "[TOOL_CALLS] [] "),
        ("mistral-args", "[TOOL_CALLS]other[ARGS]{}"),
        ("mistral-args", "[TOOL_CALLS]add[ARG"),
        ("mistral-args", "[TOOL_CALLS]add[NO]{}"),
        ("mistral-args", "[TOOL_CALLS]ad{}"),
        ("mistral-args", "[TOOL_CALLS]add[CALL_ID]a-b[ARGS]{}"),
        ("mistral-args", f"[TOOL_CALLS]add[CALL_ID]{'a' * 65}[ARGS]{{}}"),
    ],
)
def test_what_only_looks_like_a_call_is_text_and_nothing_of_it_is_lost(
    form: str, text: str
) -> None:
    assert told(form, text) == (text, [])


def test_arguments_stream_while_they_are_written() -> None:
    reads = reader("hermes")
    assert reads.push("Yes. <tool_call>") == [Text("Yes.")]
    assert reads.push('{"name": "add", "argum') == []
    assert reads.push('ents": {"a": "x') == [
        CallBegin(0, "id1", "add"),
        CallArguments(0, '{"a": "x'),
    ]
    assert reads.push("yz") == [CallArguments(0, "yz")]
    assert reads.push('"}') == [CallArguments(0, '"}')]
    assert reads.push("}") == [CallEnd(0)]
    assert reads.push("</tool_call>\n") == []
    assert reads.finish() == []


def test_text_is_held_back_only_while_it_may_be_a_tag() -> None:
    reads = reader("hermes")
    assert reads.push("a <") == [Text("a")]
    assert reads.push("b") == [Text(" <b")]
    assert reads.push('<tool_call>{"x') == []
    assert reads.push("y{") == []
    assert reads.push('"z') == [Text('<tool_call>{"xy{"z')]


def test_calls_beyond_the_first_are_left_out_where_only_one_may_be() -> None:
    alone = Tools(TOOLS.every, parallel=False)
    found = answer("hermes", f"{tagged(ADD)}{tagged(TIME)} So.", tools=alone)
    assert [(call.id, call.name) for call in found.calls] == [("id1", "add")]
    assert found.content == "So."


def test_only_tools_that_may_be_called_are() -> None:
    for tools in (Tools(TOOLS.every, "none"), Tools(TOOLS.every, only=frozenset(["get_time"]))):
        assert answer("hermes", tagged(ADD), tools=tools).calls == ()
    assert events(reader(None), [tagged(ADD)]) == [Text(tagged(ADD))]
    assert events(reader("hermes", tools=None), [tagged(ADD)]) == [Text(tagged(ADD))]


def test_a_name_may_begin_another() -> None:
    tools = Tools((Tool("add"), Tool("add_all")))
    found = answer("mistral-args", "[TOOL_CALLS]add_all[ARGS]{}[TOOL_CALLS]add{}", tools=tools)
    assert [call.name for call in found.calls] == ["add_all", "add"]


@pytest.mark.parametrize(
    ("form", "text", "is_called"),
    [("hermes", f"<tool_call>{ADD}", True),
     ("hermes", "<tool_call>" + ADD[:-1], True),  # the arguments are whole
     ("hermes", "<tool_call>" + ADD[:-2], False),
     ("hermes", tagged(ADD) + "<tool_call>" + ADD[:-2], False),
     ("hermes", tagged('{"name": "add", "arguments": {a}}'), True),  # wrong, and written to its end
     ("hermes", '<tool_call>{"name": "add", "arguments": {a', False),
     ("hermes", "Hello", False),
     ("llama3", '{"name": "add", "parameters": {"a": 1}', True),
     ("llama3", '{"name": "add", "parameters": {"a": ', False),
     ("mistral", "[TOOL_CALLS]get_time", False),
     ("mistral", "[TOOL_CALLS]get_time[ARGS]", True),
     ("mistral", '[TOOL_CALLS]add[ARGS]{"a": 1', False),
     ("mistral", '[TOOL_CALLS]add[ARGS]{a', False)],
)  # fmt: skip
def test_a_call_that_the_end_of_the_answer_broke_off_is_none_to_make(
    form: str, text: str, is_called: bool
) -> None:
    assert answer(form, text).is_called is is_called
