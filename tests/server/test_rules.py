"""The rules between fields: the document and the server agree on each pair that one speaks of."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.protocol.rules import Said, Switch, said
from octavo.server.described import DESCRIBED
from octavo.server.shapes.rules import as_schemas
from tests.server.documented import accepts
from tests.server.live import Live
from tests.server.test_openapi import LEAST

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
SCHEMA = {"type": "object"}
HI_MESSAGES = [{"role": "user", "content": "hi"}]
# What each field may say; of others nothing is asked but their being there.
SAYS: dict[str, Any] = {
    "stream": True, "stream_options": {"include_cache": True}, "return_progress": True,
    "logprobs": True, "top_logprobs": 1, "beam_width": 17, "use_beam_search": True,
    "length_penalty": 2, "early_stopping": True, "n": 16, "temperature": 1, "top_k": 2,
    "top_p": 0.5, "min_p": 0.1, "repetition_penalty": 2, "presence_penalty": 1,
    "frequency_penalty": 1, "logit_bias": {"1": 1}, "seed": 1, "stop": "x", "max_tokens": 1,
    "max_completion_tokens": 1, "tool_choice": "required",
    "response_format": {"type": "json_object"},
    "structured_outputs": {"regex": "a"}, "guided_json": SCHEMA, "guided_regex": "a",
    "guided_choice": ["a"], "guided_grammar": 'start: "a"', "continue_final_message": True,
    "add_generation_prompt": True, "cache_salt": "x", "instructions": "x", "best_of": 2,
    "echo": True, "previous_response_id": "x", "prompt": "x", "messages": HI_MESSAGES,
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "chat_template_kwargs": {"a": 1}, "add_special_tokens": True,
}  # fmt: skip
ANSWERED = [*HI_MESSAGES, {"role": "assistant", "content": "ho"}]
OF_ANTHROPIC = {"tool_choice": {"type": "any"}, "tools": [{"name": "f", "input_schema": SCHEMA}]}
OF_RESPONSES = {"tools": [{"type": "function", "name": "f", "parameters": SCHEMA}]}
OF_ROUTE: dict[str, dict[str, Any]] = {
    COMPLETIONS: {"logprobs": 1},
    "/v1/messages": OF_ANTHROPIC,
    "/v1/messages/count_tokens": OF_ANTHROPIC,
    "/v1/responses": OF_RESPONSES,
    "/v1/responses/input_tokens": OF_RESPONSES,
}
RULES = [(path, rule) for (_, path), row in DESCRIBED.items() for rule in row.rules]


def pairs(rule: Switch) -> list[tuple[Said | None, Said]]:
    """What cannot stand together, and what cannot stand alone."""
    return [
        *((None, each) for each in rule.only),
        *((by, each) for by in rule.by for each in rule.never),
    ]


def broken(rule: Switch) -> list[tuple[Said | None, Said]]:
    """What cannot stand alone, and what cannot stand together."""
    alone: list[tuple[Said | None, Said]] = [(None, each) for each in rule.only]
    return alone + [(by, each) for by in rule.by for each in rule.never]


def kept(rule: Switch) -> list[tuple[Said, Said | None]]:
    """Each switch, alone and beside what needs it."""
    return [(by, each) for by in rule.by for each in (None, *rule.only)]


@pytest.mark.parametrize(("path", "rule"), RULES)
def test_what_breaks_a_rule_is_refused(roomy: Live, path: str, rule: Switch) -> None:
    """By the document too, where the rule is said as a schema."""
    session = new_session(roomy)
    is_said = rule in as_schemas(DESCRIBED["POST", path].rules)
    for one, other in broken(rule):
        body = body_of(path, session, rule, one, other)
        assert roomy.post(path, body).status == 400, body
        assert not (is_said and accepts(path, body)), body


@pytest.mark.parametrize(("path", "rule"), RULES)
def test_what_keeps_a_rule_is_taken(roomy: Live, path: str, rule: Switch) -> None:
    """Also where the others are null."""
    session = new_session(roomy)
    for one, other in kept(rule):
        body = {
            **dict.fromkeys(each.name for each in rule.never),
            **body_of(path, session, rule, one, other),
        }
        answer = roomy.post(path, body)
        assert answer.status == 200, (body, answer.body)
        assert accepts(path, body), body


def test_most_rules_are_said_as_schemas() -> None:
    """The others would make more ways to keep them than tools combine."""
    words = [path for (_, path), row in DESCRIBED.items() for rule in row.rules
             if rule not in as_schemas(row.rules)]  # fmt: skip
    assert words == [CHAT] * 3


def new_session(roomy: Live) -> str:
    id: str = roomy.post("/v1/sessions", {"messages": HI_MESSAGES}).json["id"]
    return id


def body_of(path: str, session: str, rule: Switch, *some: Said | None) -> dict[str, Any]:
    """What these say, beside what the route must have, and one token of an answer."""
    told = {each.name: _value(path, session, each) for each in some if each is not None}
    row = DESCRIBED["POST", path]
    body = dict(LEAST.get(path, {}))
    if "continue_final_message" in told and "prompt" not in told:
        body["messages"] = ANSWERED
    if row.table and "max_tokens" in row.table and said("max_tokens") not in rule.never:
        body["max_tokens"] = 1
    return {**body, **told}


def _value(path: str, session: str, each: Said) -> Any:
    if each.something is not None:
        return each.something
    says = {**SAYS, **OF_ROUTE.get(path, {}), "session": session}
    return next(value for value in (says[each.name], False) if each.is_in({each.name: value}))
