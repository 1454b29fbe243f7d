"""How the answer is read where the prompt does not end as its template would have it."""

from __future__ import annotations

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
