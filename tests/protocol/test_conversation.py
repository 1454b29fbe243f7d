"""How the answer is read where the prompt does not end as its template would have it."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.protocol.answer import Event, Reasoning, Text
from octavo.protocol.chat import ChatRequest, parse_chat
from octavo.protocol.conversation import Conversation

# As DeepSeek's: the prompt itself begins to reason.
OPENS = (
    "{% for m in messages %}{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<think>\n{% endif %}{# </think> #}"
)


def read(asked: ChatRequest) -> list[Event]:
    reader = Conversation(lambda tools: OPENS, lambda name: None).turn(asked).new_reader()
    return [*reader.push("a</think>b"), *reader.finish()]


@pytest.mark.parametrize(
    ("said", "ends", "events"),
    [("", {}, [Reasoning("a"), Text("b")]),
     ("", {"add_generation_prompt": False}, [Text("a</think>b")]),
     ("It is ", {"continue_final_message": True}, [Text("a</think>b")]),
     ("<think>\nIt ", {"continue_final_message": True}, [Reasoning("a"), Text("b")]),
     ("<think>x</think>It ", {"continue_final_message": True}, [Text("a</think>b")])],
)  # fmt: skip
def test_only_a_message_that_reasons_reasons_on(
    said: str, ends: dict[str, bool], events: list[Event]
) -> None:
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": said}]
    assert read(parse_chat({"messages": messages, **ends})) == events


TOOL = {"type": "function", "function": {"name": "f", "strict": True}}
NAMED = {"type": "function", "function": {"name": "f"}}
PLACE = "response_format.json_schema.schema"
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
HI = [{"role": "user", "content": "?"}]


@pytest.mark.parametrize(
    ("fields", "kind", "has_calls", "field"),
    [({"response_format": SCHEMA}, "json", False, PLACE),
     ({"tools": [TOOL]}, "lark", False, "tools"),
     ({"tools": [TOOL], "response_format": SCHEMA}, "json", True, PLACE),
     ({"tools": [TOOL], "guided_regex": "a+"}, "regex", True, "guided_regex"),
     ({"tools": [TOOL], "response_format": SCHEMA, "tool_choice": "none"}, "json", False, PLACE),
     ({"tools": [TOOL], "response_format": SCHEMA, "tool_choice": "required"}, "lark", False,
      "tools"),
     ({"tools": [TOOL], "response_format": SCHEMA, "tool_choice": NAMED}, "lark", False, "tools")],
)  # fmt: skip
def test_the_answer_is_held_to_calls_or_to_what_is_asked_or_to_either(
    fields: dict[str, Any], kind: str, has_calls: bool, field: str
) -> None:
    asked = parse_chat({"messages": HI, **fields})
    turn = Conversation(lambda tools: OPENS, lambda name: None).turn(asked)
    assert turn.grammar is not None
    assert (turn.grammar.kind, turn.grammar.instead is not None) == (kind, has_calls)
    assert turn.grammar.after == "</think>"
    assert turn.grammar_field == field


def test_calls_beside_a_schema_name_control_tokens_by_their_ids() -> None:
    asked = parse_chat({"messages": HI, "tools": [TOOL], "response_format": SCHEMA})
    ids = {"<tool_call>": 7, "</tool_call>": 8}
    turn = Conversation(lambda tools: OPENS, ids.get).turn(asked)
    assert turn.grammar is not None
    assert turn.grammar.instead is not None
    assert turn.grammar.instead.startswith("start: ")
    assert turn.grammar.instead.count("<[7]>") == 2  # the first, and the next ones
    assert "<[8]>" in turn.grammar.instead
    assert set(turn.shown_tokens) == {7, 8}
