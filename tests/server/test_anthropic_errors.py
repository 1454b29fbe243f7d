"""Errors and models in the shapes of Anthropic's API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic

from octavo.server.auth import Keys
from tests.gate import PATIENCE
from tests.server.live import Live, until

MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
HI: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
SHORT: dict[str, Any] = {**HI, "max_tokens": 6}
KEY = "a-key-of-tests-that-is-long-enough"


@pytest.mark.parametrize(
    ("body", "status", "kind", "said"),
    [({**SHORT, "max_token": 1}, 400, "invalid_request_error", "unknown field 'max_token'"),
     ({**SHORT, "model": "claude-x"}, 404, "not_found_error", "model='claude-x'"),
     ({"messages": [{"role": "user", "content": "x" * 200}], "max_tokens": 1}, 400,
      "invalid_request_error", "prompt is too long: ")],
)  # fmt: skip
def test_errors_have_anthropics_shape(
    live: Live, body: object, status: int, kind: str, said: str
) -> None:
    found = live.post(MESSAGES, body)
    assert (found.status, found.json["type"]) == (status, "error")
    assert found.json["request_id"] == found.headers["request-id"]
    assert found.json["error"]["type"] == kind
    assert found.error.startswith(said)


def test_errors_have_their_types(tiny_path: Path) -> None:
    with Live(tiny_path, keys=Keys([KEY]), max_body=1024) as live:
        with Anthropic(base_url=live.url, api_key=KEY, max_retries=0, timeout=PATIENCE) as client:
            assert client.messages.create(model="tiny", **SHORT).type == "message"
            with pytest.raises(anthropic.ContentTooLargeError, match="request_too_large"):
                client.messages.create(model="tiny", system="x" * 1024, **SHORT)
            with pytest.raises(anthropic.BadRequestError, match="invalid_request_error"):
                client.messages.create(model="tiny", **SHORT, extra_body={"n": 2})
            with pytest.raises(anthropic.NotFoundError, match="not_found_error"):
                client.models.retrieve("other")
            live.service.state = "draining"
            with pytest.raises(anthropic.OverloadedError, match="overloaded_error"):
                client.messages.create(model="tiny", **SHORT)
            until(lambda: live.service.tally.requests[MESSAGES, 529] == 1)  # as it was sent
        with (
            Anthropic(
                base_url=live.url, api_key="wrong", max_retries=0, timeout=PATIENCE
            ) as client,
            pytest.raises(anthropic.AuthenticationError, match="authentication_error"),
        ):
            client.messages.create(model="tiny", **SHORT)
        with Anthropic(
            base_url=live.url, auth_token=KEY, max_retries=0, timeout=PATIENCE
        ) as client:
            live.service.state = "ready"
            assert client.messages.create(model="tiny", **SHORT).type == "message"


def test_too_many_that_wait_are_a_rate_limit(tiny_path: Path) -> None:
    with Live(tiny_path, max_waiting=1) as live:
        place = live.service.loaded.admission.enter("")
        found = live.post(MESSAGES, SHORT)
        place.__exit__()
        assert (found.status, found.json["error"]["type"]) == (429, "rate_limit_error")
        assert 1 <= int(found.headers["retry-after"]) <= 60


@pytest.mark.parametrize("limit", ["9" * 5000, "0", "1001", "-1", "%d9%a3", ""])
def test_a_list_of_models_has_a_limit(live: Live, limit: str) -> None:
    found = live.get(f"/v1/models?limit={limit}", anthropic_version="2023-06-01")
    assert (found.status, found.json["error"]["type"]) == (400, "invalid_request_error")


def test_models_are_listed_in_the_shape_of_the_caller(live: Live) -> None:
    with Anthropic(
        base_url=live.url, api_key="none needed", max_retries=0, timeout=PATIENCE
    ) as client:
        (model,) = client.models.list()
        assert (model.type, model.id, model.display_name) == ("model", "tiny", "tiny")
        assert (model.lifecycle, model.max_input_tokens) == ("active", 128)
        assert model.created_at.timestamp() == live.service.started
        assert client.models.retrieve("tiny") == model
        assert client.models.list(after_id="tiny").data == []
        with pytest.raises(anthropic.BadRequestError, match="limit"):
            client.models.list(limit=0)
    assert live.get("/v1/models").json["object"] == "list"
