"""Sessions, and turns of them, as clients ask for them."""

from __future__ import annotations

from typing import Any

from tests.server.live import Answer, Live

SESSIONS, CHAT, COMPLETIONS = "/v1/sessions", "/v1/chat/completions", "/v1/completions"
SYSTEM = {"role": "system", "content": "You are a model of few words, and of many blocks."}
HI = {"role": "user", "content": "hi"}
AND = {"role": "user", "content": "and?"}
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 5}


def begin(live: Live, **body: Any) -> dict[str, Any]:
    answer = live.post(SESSIONS, {"messages": [SYSTEM], **body})
    assert answer.status == 200, answer
    session: dict[str, Any] = answer.json
    return session


def show(live: Live, session: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = live.get(f"{SESSIONS}/{session['id']}").json
    return found


def say(live: Live, session: dict[str, Any], *messages: Any, **more: Any) -> Answer:
    body = {**GREEDY, "session": session["id"], "messages": messages, **more}
    return live.post(CHAT, body)


def text(answer: Answer) -> str:
    assert answer.status == 200, answer
    content: str = answer.json["choices"][0]["message"]["content"]
    return content
