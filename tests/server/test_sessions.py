"""Sessions: what is kept is never sent or tokenised again, and answers are those of whole chats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.server.live import Live, slowed, until
from tests.server.turns import (
    AND,
    CHAT,
    COMPLETIONS,
    GREEDY,
    HI,
    SESSIONS,
    SYSTEM,
    begin,
    say,
    show,
    text,
)

RESPONSES = "/v1/responses"
CALLABLE: Any = [{"type": "function", "function": {"name": "f"}}]


def test_a_session_says_what_it_holds(roomy: Live) -> None:
    session = begin(roomy)
    alone = roomy.post(CHAT, {**GREEDY, "messages": [SYSTEM, HI]})
    assert text(say(roomy, session, HI)) == text(alone)
    say(roomy, session, AND)
    say(roomy, session, HI)
    found = show(roomy, session)
    assert (found["messages"], found["object"]) == (7, "session")
    assert found["cached_tokens"] >= found["tokens"] - 1
    assert found["pinned_tokens"] == 0
    assert found["expires_at"] > found["created_at"]


def test_generated_ids_are_kept(roomy: Live) -> None:
    """Bytes that are no text come back as marks, whose ids are others."""
    session = begin(roomy)
    before = show(roomy, session)["tokens"]
    first = say(roomy, session, HI)
    assert "\ufffd" in text(first)
    held = show(roomy, session)["tokens"]
    assert held == before + len("<hi>\n") + len("user\nassistant\n") + 1 + 5
    second = say(roomy, session, AND)
    usage = second.json["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] >= held - 1
    assert usage["prompt_tokens"] == held + len("<>\n<user\nand?>\n<assistant\n") - 1


def test_answers_that_end_by_themselves_are_closed_by_the_template(roomy: Live) -> None:
    session = begin(roomy)
    whole: list[dict[str, Any]] = [SYSTEM]
    for message in (HI, AND, HI):
        whole.append(message)
        own = say(roomy, session, message, guided_choice=["yes", "no"])
        alone = roomy.post(CHAT, {**GREEDY, "messages": whole, "guided_choice": ["yes", "no"]})
        assert own.json["choices"][0] == alone.json["choices"][0]
        assert own.json["choices"][0]["finish_reason"] == "stop"
        assert own.json["usage"]["prompt_tokens"] == alone.json["usage"]["prompt_tokens"]
        whole.append({"role": "assistant", "content": text(own)})


@pytest.mark.parametrize("stream", [False, True])
def test_a_fork_goes_its_own_way_and_computes_nothing(roomy: Live, stream: bool) -> None:
    session = begin(roomy)
    say(roomy, session, HI)
    held = show(roomy, session)
    listed = roomy.post(f"{SESSIONS}/{session['id']}/fork", {"n": 2}).json["data"]
    assert [each["tokens"] for each in listed] == [held["tokens"]] * 2
    assert len({session["id"], *(each["id"] for each in listed)}) == 3
    one = say(roomy, listed[0], AND, stream=stream)
    two = say(roomy, session, AND, stream=stream)
    assert one.status == two.status == 200
    tokens = [show(roomy, each)["tokens"] for each in (*listed, session)]
    assert tokens[0] == tokens[2] > tokens[1] == held["tokens"]
    unsaid = roomy.ask("POST", f"{SESSIONS}/{session['id']}/fork", None, content_length="0")
    assert len(unsaid.json["data"]) == 1


def test_rewinding_to_a_turn_is_as_if_the_rest_was_never_said(roomy: Live) -> None:
    session = begin(roomy)
    say(roomy, session, HI)
    held = show(roomy, session)
    path = f"{SESSIONS}/{session['id']}/rewind"
    once = text(say(roomy, session, AND))
    for back in ({"messages": 3}, {"tokens": held["tokens"]}):
        again = roomy.post(path, back).json
        assert (again["tokens"], again["messages"]) == (held["tokens"], 3)
        assert text(say(roomy, session, AND)) == once
    refused = roomy.post(path, {"messages": 2})
    assert (refused.status, "(1, 3, 5)" in refused.error) == (400, True)
    assert roomy.post(path, {"tokens": 10_000}).status == 400
    assert roomy.post(path, {}).status == roomy.post(path, {"tokens": 0}).status == 400
    plain = roomy.post(path, {"tokens": held["tokens"] - 1}).json
    assert (plain["tokens"], plain["messages"]) == (held["tokens"] - 1, None)
    assert say(roomy, session, AND).json["error"]["param"] == "session"


def test_a_plain_prompt_goes_on(roomy: Live) -> None:
    session = begin(roomy, messages=None, prompt="one two")
    body = {**GREEDY, "session": session["id"], "prompt": " three"}
    own = roomy.post(COMPLETIONS, body).json["choices"][0]["text"]
    alone = roomy.post(COMPLETIONS, {**GREEDY, "prompt": "one two three"}).json
    assert own == alone["choices"][0]["text"]
    assert show(roomy, session)["tokens"] == len("one two three") + 5
    assert roomy.post(COMPLETIONS, {**body, "echo": True}).status == 400
    assert roomy.post(COMPLETIONS, {**body, "prompt": ["a", "b"]}).status == 400


def test_a_pin_is_held_until_the_session_is_deleted(roomy: Live) -> None:
    session = begin(roomy, pin=True)
    assert session["pinned_tokens"] >= 16
    assert session["cached_tokens"] >= session["tokens"] - 1
    say(roomy, session, HI)
    grown = show(roomy, session)
    assert grown["pinned_tokens"] > session["pinned_tokens"]
    assert roomy.get("/v1/cache").json["pins"]
    deleted = roomy.ask("DELETE", f"{SESSIONS}/{session['id']}", None)
    assert deleted.json == {"id": session["id"], "object": "session", "deleted": True}
    assert roomy.get(f"{SESSIONS}/{session['id']}").status == 404
    until(lambda: not roomy.get("/v1/cache").json["pins"])


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_may_fill_the_context(tiny_path: Path, stream: bool) -> None:
    with Live(tiny_path) as server:
        session = begin(server, messages=[HI], pin=True)
        answer = say(server, session, AND, max_tokens=None, ignore_eos=True, stream=stream)
        assert answer.status == 200
        if stream:
            assert answer.events[-1] == "[DONE]"
        found = show(server, session)
        context = server.engine.info.context
        assert (found["tokens"], found["messages"]) == (context + 1, 3)
        assert found["pinned_tokens"] == context
        full = say(server, session, HI)
        assert (full.status, full.json["error"]["code"]) == (400, "context_length_exceeded")
        path = f"{SESSIONS}/{session['id']}"
        assert server.post(f"{path}/fork", {}).status == 200
        assert server.post(f"{path}/rewind", {"messages": 1}).status == 200
        assert say(server, session, HI).status == 200


def test_a_pin_that_was_cleared_is_not_told(roomy: Live) -> None:
    session = begin(roomy, pin=True)
    assert roomy.post("/v1/cache/clear", {}).status == 200
    found = show(roomy, session)
    assert (found["pinned_tokens"], found["cached_tokens"]) == (0, 0)
    say(roomy, session, HI)
    assert show(roomy, session)["pinned_tokens"] >= session["pinned_tokens"]
    assert len(roomy.get("/v1/cache").json["pins"]) == 1
    roomy.ask("DELETE", f"{SESSIONS}/{session['id']}", None)
    until(lambda: not roomy.get("/v1/cache").json["pins"])


def test_two_requests_at_once_are_a_conflict(roomy: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    session = begin(roomy)
    before = show(roomy, session)
    with monkeypatch.context() as slow:
        slow.setattr(roomy.llm.loop.engine, "step", slowed(roomy, 0.02))
        connection = roomy.connect()
        body = (
            f'{{"session": "{session["id"]}", "messages": [{{"role": "user", "content": "hi"}}],'
            ' "stream": true, "ignore_eos": true, "max_tokens": 500}'
        )
        connection.request("POST", CHAT, body, {"content-type": "application/json"})
        response = connection.getresponse()
        assert response.read(6) == b"data: "
        refused = say(roomy, session, HI)
        assert (refused.status, refused.json["error"]["code"]) == (409, "session_in_use")
        assert roomy.ask("DELETE", f"{SESSIONS}/{session['id']}", None).status == 409
        response.close()
        connection.close()
        until(lambda: roomy.service.loaded.admission.num_open == 0)
    after = show(roomy, session)
    assert (after["tokens"], after["messages"]) == (before["tokens"], 1)
    assert say(roomy, session, HI).status == 200


def test_a_turn_that_is_open_ends_while_the_server_drains(
    roomy: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path, said in (
        (CHAT, {"messages": [HI]}),
        (RESPONSES, {"input": "hi"}),
        (COMPLETIONS, {"prompt": "hi"}),
    ):
        session = begin(roomy)
        body = {"session": session["id"], "stream": True, "ignore_eos": True, **said}
        most = "max_output_tokens" if path == RESPONSES else "max_tokens"
        with monkeypatch.context() as slow:
            slow.setattr(roomy.llm.loop.engine, "step", slowed(roomy, 0.02))
            connection = roomy.connect()
            kind = {"content-type": "application/json"}
            connection.request("POST", path, json.dumps({**body, most: 20}), kind)
            response = connection.getresponse()
            found = response.read(6)
            slow.setattr(roomy.service, "state", "draining")
            found += response.read()
            connection.close()
        assert b'error":{' not in found, found
        assert show(roomy, session)["tokens"] > session["tokens"] + 20


def test_a_choice_of_a_tool_is_of_one_turn(roomy: Live) -> None:
    session = begin(roomy, tools=CALLABLE)
    noted = [*CALLABLE, {"type": "web_search"}]
    forced = say(
        roomy, session, HI, tools=noted, tool_choice="required", parallel_tool_calls=False,
        max_tokens=200,
    )  # fmt: skip
    assert forced.json["choices"][0]["finish_reason"] == "tool_calls"
    after = say(roomy, session, AND)
    assert "tool_calls" not in after.json["choices"][0]["message"]
    assert "x-octavo-ignored" not in after.headers


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_only_computed_leaves_no_answer(roomy: Live, stream: bool) -> None:
    session = begin(roomy)
    say(roomy, session, HI)
    held = show(roomy, session)
    warm = say(roomy, session, AND, max_tokens=0, stream=stream)
    assert warm.status == 200
    found = show(roomy, session)
    assert (found["tokens"], found["messages"]) == (held["tokens"], held["messages"])
    usage = say(roomy, session, AND).json["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"] - 1
    assert show(roomy, session)["messages"] == held["messages"] + 2


def test_nor_does_one_of_a_plain_prompt(roomy: Live) -> None:
    session = begin(roomy, messages=None, prompt="one two")
    body = {**GREEDY, "session": session["id"], "prompt": " three", "max_tokens": 0}
    assert roomy.post(COMPLETIONS, body).status == 200
    assert show(roomy, session)["tokens"] == len("one two")
