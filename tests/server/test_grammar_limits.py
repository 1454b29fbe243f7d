"""An answer that goes beyond the limits of its grammar ends its request alone, by an error of the
API: on every route, whole and in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anthropic import Anthropic
from anthropic import BadRequestError as AnthropicRefused
from openai import APIError, BadRequestError, OpenAI

from octavo.grammar.library import Compiler
from tests.server.live import Live

# Each text of a and b needs states of its own.
SCHEMA: dict[str, Any] = {"type": "string", "pattern": "^(a|b)*a(a|b){12}c$"}
FORMAT: dict[str, Any] = {"type": "json_schema", "json_schema": {"name": "ab", "schema": SCHEMA}}
HI: list[Any] = [{"role": "user", "content": "hi"}]
SAID = "the answer went beyond the limits of its grammar: "
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HI, "response_format": FORMAT},
    "/v1/completions": {"prompt": "hi", "max_tokens": 100, "response_format": FORMAT},
    "/v1/responses": {
        "input": "hi",
        "text": {"format": {"type": "json_schema", "name": "ab", "schema": SCHEMA}},
    },
    "/v1/messages": {
        "messages": HI, "max_tokens": 100,
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def tight(tiny_path: Path) -> Iterator[Live]:
    """Its grammars come to their limits after a few tokens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Compiler.__init__, "__kwdefaults__", {"most_states": 30})
        with Live(tiny_path) as live:
            yield live


@pytest.mark.parametrize("route", BODIES)
def test_the_request_alone_ends_with_an_error(tight: Live, route: str) -> None:
    answer = tight.post(route, {**BODIES[route], "temperature": 1, "seed": 1})
    assert (answer.status, answer.error.startswith(SAID)) == (400, True)
    if route != "/v1/messages":
        assert answer.json["error"]["code"] == "grammar_failed"
    assert answer.json["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("route", BODIES)
def test_so_does_a_stream_and_does_not_look_whole(tight: Live, route: str) -> None:
    found = tight.post(route, {**BODIES[route], "temperature": 1, "seed": 1, "stream": True})
    assert found.status == 200
    *told, last = found.events
    assert told  # it had begun; its pieces may have come in one
    if route == "/v1/responses":
        assert last["type"] == "response.failed"
        assert last["response"]["status"] == "failed"
        last = last["response"]
        assert tight.get(f"{route}/{last['id']}").json == last
        after = {"input": "so?", "previous_response_id": last["id"], "max_output_tokens": 1}
        assert tight.post(route, after).status == 200  # with what there is of it
    assert last["error"]["message"].startswith(SAID)
    if route != "/v1/messages":
        assert last["error"]["code"] == "grammar_failed"
    assert not any(end in found.body for end in (b"[DONE]", b"message_stop", b"message_delta"))


def test_clients_raise_it(tight: Live) -> None:
    body = BODIES["/v1/chat/completions"]
    with OpenAI(base_url=f"{tight.url}/v1", api_key="none needed") as openai:
        with pytest.raises(BadRequestError, match=SAID) as refused:
            openai.chat.completions.create(model="tiny", seed=1, temperature=1, **body)
        assert refused.value.code == "grammar_failed"
        with pytest.raises(APIError, match=SAID):
            list(openai.chat.completions.create(
                model="tiny", seed=1, temperature=1, stream=True, **body
            ))  # fmt: skip
    body = BODIES["/v1/messages"]
    with (
        Anthropic(base_url=tight.url, api_key="none needed") as anthropic,
        pytest.raises(AnthropicRefused, match=SAID),
    ):
        anthropic.messages.create(model="tiny", extra_body={"seed": 1, "temperature": 1}, **body)
