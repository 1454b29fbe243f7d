"""What `cache_control` marks in a body of /v1/messages is kept, and told."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.anthropic_bodies import COUNT, MESSAGES, SHORT, TOOLS
from tests.server.live import Live


def marked(text: str, **mark: str) -> dict[str, Any]:
    return {"type": "text", "text": text, "cache_control": {"type": "ephemeral", **mark}}


def test_the_second_call_reads_what_the_first_created(roomy: Live) -> None:
    def ask(question: str, **more: object) -> Any:
        system = [marked("A long story about a whale and the sea." * 3, ttl="1h")]
        messages = [{"role": "user", "content": question}]
        return roomy.post(
            MESSAGES,
            {"max_tokens": 2, "system": system, "messages": messages, "cache_salt": "own", **more},
        )

    first = ask("Who swims?")
    pinned = int(first.headers["x-octavo-pinned"])
    assert pinned % 16 == 0
    assert 100 < pinned < len("A long story about a whale and the sea." * 3) + 30
    usage = first.json["usage"]
    assert (usage["cache_creation_input_tokens"], usage["cache_read_input_tokens"]) == (pinned, 0)
    usage = ask("How deep is it?").json["usage"]
    assert usage["cache_creation_input_tokens"] == 0
    assert usage["cache_read_input_tokens"] >= pinned
    *_, ending, _ = ask("And how deep?", stream=True).events
    assert ending["usage"]["cache_read_input_tokens"] >= pinned
    view = roomy.get("/v1/cache?cache_salt=own").json
    assert [pin["num_tokens"] for pin in view["pins"]] == [pinned]


def test_a_stream_creates_what_its_marks_say(roomy: Live) -> None:
    body = {
        "max_tokens": 2, "messages": [{"role": "user", "content": "All of this is marked."}],
        "cache_control": {"type": "ephemeral"}, "cache_salt": "stream", "stream": True,
    }  # fmt: skip
    *_, ending, _ = roomy.post(MESSAGES, body).events
    usage = ending["usage"]
    created = usage["cache_creation_input_tokens"]
    assert created > 0
    prompt = usage["input_tokens"] + created + usage["cache_read_input_tokens"]
    own = {"max_tokens", "stream", "cache_salt"}  # of the answer
    counted = {name: value for name, value in body.items() if name not in own}
    assert roomy.post(COUNT, counted).json["input_tokens"] == prompt


def test_over_the_budget_nothing_is_pinned_and_the_header_says_so(
    roomy: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roomy.engine.pins, "most", 0)
    text = "Nothing of this is ever kept, however long it may be."
    asked = {**SHORT, "messages": [{"role": "user", "content": [marked(text)]}]}
    found = roomy.post(MESSAGES, {**asked, "cache_salt": "poor"})
    assert found.headers["x-octavo-pinned"].startswith("0; ")
    assert found.json["usage"]["cache_creation_input_tokens"] == 0
    *_, ending, _ = roomy.post(MESSAGES, {**asked, "cache_salt": "poor", "stream": True}).events
    why = found.headers["x-octavo-pinned"].removeprefix("0; ")
    assert ending["pinned"] == {"num_tokens": 0, "why_not": why}
    assert roomy.get("/v1/cache?cache_salt=poor").json["pins"] == []


def test_a_mark_before_all_messages(roomy: Live) -> None:
    tools = [{**TOOLS[0], "cache_control": {"type": "ephemeral"}}, TOOLS[1]]
    found = roomy.post(MESSAGES, {**SHORT, "tools": tools, "cache_salt": "tools"})
    assert int(found.headers["x-octavo-pinned"]) > 400  # the text about them stands first
