"""Earlier turns, as a template in Harmony's shape renders them, and what it is told beside."""

from __future__ import annotations

import json
from typing import Any

import pytest

from octavo.errors import UsageError
from octavo.protocol.answer import Event, Reasoning, Text, collect
from octavo.protocol.chat import ChatRequest, parse_chat
from octavo.protocol.conversation import Conversation, Turn
from octavo.tokenizer.chat_template import ChatTemplate
from tests.protocol.tools.harmony.shape import BEGUN, TEMPLATE

HI = {"role": "user", "content": "Weather?"}
SAID_HI = BEGUN + "<|start|>user<|message|>Weather?<|end|>"
START = "<|start|>assistant"
FINAL = f"{START}<|channel|>final<|message|>"
ANALYSIS = f"{START}<|channel|>analysis<|message|>"


def call(id: str, **arguments: object) -> dict[str, Any]:
    function = {"name": "weather", "arguments": json.dumps(arguments)}
    return {"id": id, "type": "function", "function": function}


def called(**arguments: object) -> str:
    header = f"{START} to=functions.weather<|channel|>commentary json<|message|>"
    return f"{header}{json.dumps(arguments)}<|call|>"


def result(id: str, content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


def returned(content: str) -> str:
    header = "<|start|>functions.weather to=assistant<|channel|>commentary<|message|>"
    return f"{header}{json.dumps(content)}<|end|>"


def answer(content: str | None, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def turn(
    *messages: dict[str, Any], template: str = TEMPLATE, inline: bool = False, **fields: Any
) -> Turn:
    conversation = Conversation(lambda tools: template, lambda name: None, inline_reasoning=inline)
    return conversation.turn(parse_chat({"messages": [HI, *messages], **fields}))


def rendered(*messages: dict[str, Any], **more: Any) -> str:
    found = turn(*messages, **more)
    text = ChatTemplate(TEMPLATE, "", "").render(
        found.messages, tools=found.tools, **found.template_args
    )
    assert text.startswith(SAID_HI)
    return text.removeprefix(SAID_HI).removesuffix(START)


def test_reasoning_stands_before_a_call_that_nothing_final_follows() -> None:
    asked = answer(None, reasoning_content="Hm.", tool_calls=[call("1", city="Rome")])
    thought = f"{ANALYSIS}Hm.<|end|>"
    assert rendered(asked, result("1", "sun")) == thought + called(city="Rome") + returned("sun")
    assert rendered(asked, result("1", "sun"), answer("Sun."), HI) == (
        f"{called(city='Rome')}{returned('sun')}{FINAL}Sun.<|end|>"
        "<|start|>user<|message|>Weather?<|end|>"
    )


def test_reasoning_of_an_earlier_answer_has_no_place() -> None:
    assert rendered(answer("Sun.", reasoning_content="Hm."), HI) == (
        f"{FINAL}Sun.<|end|><|start|>user<|message|>Weather?<|end|>"
    )


def test_text_beside_calls_joins_the_reasoning() -> None:
    calls = [call("1", city="Rome")]
    both = answer("I look.", reasoning_content="Hm.", tool_calls=calls)
    behind = called(city="Rome") + returned("sun")
    assert rendered(both, result("1", "sun")) == f"{ANALYSIS}Hm.\nI look.<|end|>{behind}"
    text = answer("I look.", tool_calls=calls)
    assert rendered(text, result("1", "sun")) == f"{ANALYSIS}I look.<|end|>{behind}"


def test_calls_of_one_answer_stand_one_by_one_with_their_results() -> None:
    asked = answer(
        None, reasoning_content="Hm.", tool_calls=[call("1", city="Rome"), call("2", city="Oslo")]
    )
    rome, oslo = called(city="Rome"), called(city="Oslo")
    thought = f"{ANALYSIS}Hm.<|end|>"
    whole = f"{thought}{rome}{returned('sun')}{oslo}{returned('rain')}"
    assert rendered(asked, result("1", "sun"), result("2", "rain")) == whole
    assert rendered(asked, result("2", "rain"), result("1", "sun")) == whole
    assert rendered(asked, result("2", "rain"), HI) == (
        f"{thought}{rome}{oslo}{returned('rain')}<|start|>user<|message|>Weather?<|end|>"
    )
    assert rendered(asked, result("x", "?")) == f"{thought}{rome}{oslo}{returned('?')}"


def test_a_tool_has_a_description_if_an_empty_one() -> None:
    tools = [{"type": "function", "function": {"name": name, **more}} for name, more in (
        ("f", {}), ("g", {"description": "Looks"}))]  # fmt: skip
    found = turn(tools=tools)
    text = ChatTemplate(TEMPLATE, "", "").render(found.messages, tools=found.tools)
    assert "<|start|>developer<|message|>// \nf// Looks\ng<|end|>" in text


def test_what_was_told_inline_is_taken_back_apart() -> None:
    reader = turn(inline=True).new_reader()
    text = f"{ANALYSIS}Hm.<|end|>{FINAL}Sun."
    found = collect([*reader.push(text), *reader.finish()])
    assert found.content == "<think>\nHm.\n</think>\n\nSun."
    said = answer(found.content)
    assert rendered(said, HI, inline=True) == (
        f"{FINAL}Sun.<|end|><|start|>user<|message|>Weather?<|end|>"
    )
    assert "<think>" in rendered(said, HI)
    calls = [call("1", city="Rome")]
    for told in ("<think>\nHm.\n</think>", "<think>\nHm.\n</think>\n\n"):
        asked = answer(told, tool_calls=calls)
        assert rendered(asked, result("1", "sun"), inline=True) == (
            f"{ANALYSIS}Hm.<|end|>{called(city='Rome')}{returned('sun')}"
        )
    twice = answer("<think>\na\n</think>\n\n<think>\nb\n</think>\n\nx", tool_calls=calls)
    assert rendered(twice, inline=True) == f"{ANALYSIS}a\nb\nx<|end|>{called(city='Rome')}"
    cut = answer("<think>\nHm")
    assert f"{FINAL}<think>\nHm<|end|>" in rendered(cut, HI, inline=True)


def test_a_message_of_the_next_turn_has_all_of_the_answer() -> None:
    text = (
        f"{ANALYSIS}Hm.<|end|>{START}<|channel|>commentary to=functions.f <|constrain|>json"
        '<|message|>{"a": 1}<|call|>'
    )
    tools = [{"type": "function", "function": {"name": "f"}}]
    message = turn(tools=tools).message(text)
    (made,) = message.pop("tool_calls")
    assert message == {"role": "assistant", "content": "", "reasoning_content": "Hm."}
    assert made["function"] == {"name": "f", "arguments": {"a": 1}}


@pytest.mark.parametrize(
    ("asked", "told"),
    [("minimal", "low"), ("low", "low"), ("medium", "medium"), ("high", "high"), ("xhigh", "high"),
     ("max", "high")],
)  # fmt: skip
def test_efforts_are_those_that_models_know(asked: str, told: str) -> None:
    found = turn(reasoning_effort=asked)
    assert (found.template_args, found.noted) == ({"reasoning_effort": told}, ())


def test_there_is_no_effort_of_none_and_none_without_a_place() -> None:
    found = turn(reasoning_effort="none")
    assert (found.template_args, found.noted) == ({}, ("reasoning_effort",))
    fixed = TEMPLATE.replace("reasoning_effort | default('medium')", "'medium'")
    found = turn(reasoning_effort="low", template=fixed)
    assert (found.template_args, found.noted) == ({}, ("reasoning_effort",))
    own = turn(reasoning_effort="low", chat_template_kwargs={"reasoning_effort": "high"})
    assert own.template_args == {"reasoning_effort": "high"}


def read(asked: ChatRequest, template: str, text: str) -> list[Event]:
    reader = Conversation(lambda tools: template, lambda name: None).turn(asked).new_reader()
    return [*reader.push(text), *reader.finish()]


def test_where_the_prompt_ends_says_what_an_answer_begins_with() -> None:
    hi = {"messages": [HI, answer("It ")]}
    asked = parse_chat(hi)
    whole = f"<|channel|>analysis<|message|>a<|end|>{FINAL}b"
    assert read(asked, TEMPLATE, whole) == [Reasoning("a"), Text("b")]
    closed = parse_chat({**hi, "add_generation_prompt": False})
    assert read(closed, TEMPLATE, START + whole) == [Reasoning("a"), Text("b")]
    goes_on = parse_chat({**hi, "continue_final_message": True})
    assert read(goes_on, TEMPLATE, "t is") == [Text("t is")]
    assert read(goes_on, TEMPLATE, "is<|end|>" + START + whole) == [
        Text("is"), Reasoning("a"), Text("\nb"),
    ]  # fmt: skip
    begun = TEMPLATE.removesuffix("{% endif %}") + "<|channel|>analysis<|message|>{% endif %}"
    assert read(asked, begun, f"a<|end|>{FINAL}b") == [Reasoning("a"), Text("b")]


def test_tags_that_are_control_tokens_are_shown_with_tools_or_without() -> None:
    ids = {"<|channel|>": 1, "<|message|>": 2, "<|end|>": 3, "</think>": 4}
    shown = Conversation(lambda tools: TEMPLATE, ids.get).turn(parse_chat({"messages": [HI]}))
    assert set(shown.shown_tokens) == {1, 2, 3}


def test_a_template_that_fails_is_the_business_of_who_renders_it() -> None:
    for broken in (TEMPLATE + "{{ raise_exception('no') }}", TEMPLATE + "{% if"):
        found = turn(template=broken)
        assert [*found.new_reader().push("<|channel|>final<|message|>a")] == [Text("a")]


def test_another_form_of_calls_is_refused() -> None:
    with pytest.raises(UsageError, match=r"tool format 'hermes': .* leave it out"):
        Conversation(lambda tools: TEMPLATE, lambda name: None, tool_format="hermes")
