"""/v1/messages: bodies in, the same chat out that OpenAI's clients would have asked for."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.grammar import GrammarSpec
from octavo.protocol.bodies import BodyError
from octavo.protocol.messages.request import parse_count, parse_messages
from tests.protocol.messages.asked import ADD, EPHEMERAL, USER, parse, text, user


def test_a_body_becomes_a_chat() -> None:
    found = parse(
        model="m", system="Be brief.", stream=True, seed=5, temperature=0, top_k=3,
        stop_sequences=["END"], cache_salt="s",
    ).chat  # fmt: skip
    assert found.model == "m"
    assert found.messages == ({"role": "system", "content": "Be brief."}, USER)
    params = found.params
    assert (params.max_tokens, params.seed, params.temperature, params.top_k) == (9, 5, 0, 3)
    assert params.stop == ("END",)
    assert found.stream.wanted
    assert (found.options.cache_salt, found.options.begins_turn) == ("s", True)


def test_a_conversation_with_calls_is_read_back() -> None:
    add = {"type": "tool_use", "name": "add"}
    thought = {"type": "thinking", "thinking": "well", "signature": "any"}
    direct = {"caller": {"type": "direct"}}
    blocks = [thought, text("I add."), {**add, "id": "c1", "input": {"a": 1}},
              {**add, "id": "c2", "input": {}, **direct}]  # fmt: skip
    result = {"type": "tool_result", "tool_use_id": "c1", "content": [text("3"), text("4")]}
    error = {"type": "tool_result", "tool_use_id": "c2", "content": "no", "is_error": True}
    found = parse(
        user(text("one"), text("two")),
        {"role": "assistant", "content": blocks},
        user(result, error, text("So?")),
        {"role": "system", "content": "Be kind."},
        USER,
    )

    def call(call_id: str, arguments: object) -> dict[str, object]:
        function = {"name": "add", "arguments": arguments}
        return {"id": call_id, "type": "function", "function": function}

    calls = [call("c1", {"a": 1}), call("c2", {})]
    assert found.chat.messages == (
        {"role": "user", "content": "one\ntwo"},
        {"role": "assistant", "content": "I add.", "reasoning_content": "well",
         "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "3\n4"},
        {"role": "tool", "tool_call_id": "c2", "content": "Error: no"},
        {"role": "user", "content": "So?"},
        {"role": "system", "content": "Be kind."},
        USER,
    )  # fmt: skip


def test_turns_of_one_role_are_one() -> None:
    found = parse(USER, USER, {"role": "assistant", "content": "a"}, USER).chat.messages
    assert [each["content"] for each in found] == ["hi\nhi", "a", "hi"]


@pytest.mark.parametrize("system", ["", []])
def test_an_empty_system_says_nothing(system: object) -> None:
    assert parse(system=system).chat.messages == (USER,)


def test_thinking_that_nobody_here_can_read_is_left_out_and_named() -> None:
    hidden = {"type": "redacted_thinking", "data": "c2VjcmV0"}
    said = {"role": "assistant", "content": [hidden, text("a"), hidden]}
    found = parse(USER, said, USER, system=BILLING)
    assert found.chat.messages == (USER, {"role": "assistant", "content": "a"}, USER)
    assert found.noted == (
        "x-anthropic-billing-header", "messages[1].content[0]", "messages[1].content[2]",
    )  # fmt: skip


BILLING = "x-anthropic-billing-header: cc_version=2.1; cch=1f3a;"


@pytest.mark.parametrize(
    "system",
    [[text(BILLING), text("Be brief.")], f"{BILLING}\nBe brief.", [text(f"{BILLING}\nBe brief.")]],
)
def test_the_billing_header_is_left_out_and_noted(system: object) -> None:
    found = parse(system=system)
    assert found.chat.messages == ({"role": "system", "content": "Be brief."}, USER)
    assert found.noted == ("x-anthropic-billing-header",)


def test_a_billing_header_alone_is_no_message() -> None:
    assert parse(system=BILLING).chat.messages == (USER,)
    assert parse({"role": "user", "content": BILLING}).chat.messages[0]["content"] == BILLING


def test_labels_are_noted() -> None:
    labels: dict[str, Any] = {
        "metadata": {"user_id": "u"}, "service_tier": "auto", "inference_geo": "eu",
        "speed": "fast", "context_management": {}, "diagnostics": {}, "user_profile_id": "u",
        "workspace_id": "w",
    }  # fmt: skip
    assert parse(**labels, container=None, mcp_servers=[]).noted == tuple(labels)


def test_tools_and_the_choice_of_them() -> None:
    web = {"type": "web_search_20250305", "name": "web_search"}
    own = {**ADD, "type": "custom", "strict": True, "description": "Adds"}
    tools = parse(tools=[web, own]).chat.tools
    assert tools is not None
    assert tools.noted == ("tools[0]",)
    (add,) = tools.every
    assert (add.name, add.description, add.strict) == ("add", "Adds", True)
    assert parse(tools=[]).chat.tools is None


@pytest.mark.parametrize(
    ("choice", "found"),
    [({"type": "auto"}, ("auto", None, True)),
     ({"type": "auto", "disable_parallel_tool_use": True}, ("auto", None, False)),
     ({"type": "any"}, ("required", None, True)),
     ({"type": "none"}, ("none", None, True)),
     ({"type": "tool", "name": "add"}, ("required", frozenset({"add"}), True))],
)  # fmt: skip
def test_the_choice_of_a_tool(choice: object, found: object) -> None:
    tools = parse(tools=[ADD], tool_choice=choice).chat.tools
    assert tools is not None
    assert (tools.choice, tools.only, tools.parallel) == found


@pytest.mark.parametrize(
    ("fields", "effort", "named"),
    [({}, None, ()),
     ({"thinking": {"type": "disabled"}}, "none", ("thinking",)),
     ({"thinking": {"type": "adaptive"}}, "high", ("thinking",)),
     ({"output_config": {"effort": "max"}}, "xhigh", ("output_config.effort",)),
     ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, "low",
      ("thinking", "output_config.effort"))],
)  # fmt: skip
def test_thinking_is_an_effort(
    fields: dict[str, Any], effort: str | None, named: tuple[str, ...]
) -> None:
    chat = parse(**fields).chat
    assert (chat.effort, chat.effort_fields) == (effort, named)


def test_a_budget_of_thinking_is_noted_and_its_display_kept() -> None:
    thinking = {"type": "enabled", "budget_tokens": 2048}
    found = parse(thinking=thinking)
    assert (found.chat.effort, found.noted) == ("high", ("thinking.budget_tokens",))
    assert found.shows_thinking
    assert not parse(thinking={**thinking, "display": "omitted"}).shows_thinking


def test_a_format_is_a_grammar() -> None:
    asked = {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    assert parse(output_config=asked).chat.grammar == GrammarSpec.of(json={"type": "object"})
    assert parse(output_config={"format": None}).chat.grammar is None


def test_marks_hold_the_messages_up_to_them() -> None:
    hour = {"type": "ephemeral", "ttl": "1h"}
    found = parse(
        user(text("one", cache_control=EPHEMERAL), text("two")),
        system=[text("sys", cache_control=hour)],
        tools=[{**ADD, "cache_control": EPHEMERAL}],
        cache_control=EPHEMERAL,
    )
    system = {"role": "system", "content": "sys"}
    assert found.marks == (
        ((), 300),
        ((system,), 3600),
        ((system, {"role": "user", "content": "one"}), 300),
        ((system, {"role": "user", "content": "one\ntwo"}), 300),
    )


def test_who_shares_what_is_marked_changes_nothing() -> None:
    marked = {"type": "ephemeral", "ttl": "1h", "scope": "global"}
    found = parse(USER, system=[text("a", cache_control=marked)] * 2)
    assert [mark.seconds for mark in found.marks] == [3600, 3600]
    assert found.noted == ("cache_control.scope",)


def test_marks_inside_a_result_hold_it_up_to_them() -> None:
    content = [text("a", cache_control=EPHEMERAL), text("b")]
    result = {"type": "tool_result", "tool_use_id": "c", "content": content, "is_error": True}
    found = parse(user({**result, "cache_control": EPHEMERAL}))
    said = [mark.messages[-1]["content"] for mark in found.marks]
    assert said == ["Error: a", "Error: a\nb"]


def test_a_count_takes_the_conversation_and_no_more() -> None:
    body = {"messages": [USER], "system": "s", "tools": [ADD], "thinking": {"type": "disabled"}}
    whole = parse_messages({**body, "max_tokens": 5}).chat
    counted = parse_count(body).chat
    assert (counted.messages, counted.tools) == (whole.messages, whole.tools)
    with pytest.raises(BodyError, match="max_tokens"):
        parse_count({**body, "max_tokens": 5})
