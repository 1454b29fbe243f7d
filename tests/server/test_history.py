"""/v1/cache/requests: what the cache did for the caller's last requests, and for nobody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from octavo.server import history
from octavo.server.auth import Keys
from octavo.server.history import History
from octavo.server.outcome import Outcome
from tests.server.live import Live, leave, until

COMPLETIONS = "/v1/completions"
ANN, BOB = "ann-0123456789abcdef", "bob-0123456789abcdef"


def kept(live: Live, id: str, **headers: str) -> Any:
    """The record, as soon as it is there: it comes after the last byte of the answer."""
    until(lambda: live.get(f"/v1/cache/requests/{id}", **headers).status == 200)
    return live.get(f"/v1/cache/requests/{id}", **headers).json


def test_a_hit_and_where_it_parted(live: Live) -> None:
    for prompt in ("one prompt of many words", "one prompt of more words"):
        body = {"prompt": prompt, "max_tokens": 1}
        found = live.post(COMPLETIONS, body, x_request_id=prompt.replace(" ", "-"))
    assert found.json["id"] == "cmpl-one-prompt-of-more-words"
    record = kept(live, found.json["id"])
    assert kept(live, "one-prompt-of-more-words") == record
    assert record["ended"] > 1e9
    (own,) = record["prompts"]
    own["cache"].pop("saved_ms")
    assert {**record, "ended": 0} == {
        "id": "one-prompt-of-more-words",
        "object": "cache.request",
        "ended": 0,
        "route": COMPLETIONS,
        "status": 200,
        "finish": ["length"],
        "prompts": [
            {
                "prompt_tokens": 24,
                "cache": {
                    "matched_tokens": 15,
                    "source": "process",
                    "reason": "diverged",
                    "diverged_at": 15,
                    "diverged_text": "o",
                    "known_tokens": None,
                    "sliding_context": None,
                    "let_go_tokens": None,
                },
            }
        ],
    }


def test_a_label_sums_up_what_the_cache_did(tiny_path: Path) -> None:
    keys = Keys([f"{ANN} tenant=ann", f"{BOB} tenant=bob"])
    with Live(tiny_path, keys=keys) as live:
        ann, bob = f"Bearer {ANN}", f"Bearer {BOB}"
        chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
        for id, label in (("one", "k"), ("two", "k"), ("three", "other")):
            body = {**chat, "prompt_cache_key": label}
            live.post("/v1/chat/completions", body, authorization=ann, x_request_id=id)
            record = kept(live, id, authorization=ann)
            assert record["prompt_cache_key"] == label
        body = {"input": "hi", "max_output_tokens": 1, "prompt_cache_key": "response"}
        live.post("/v1/responses", body, authorization=ann, x_request_id="four")
        assert kept(live, "four", authorization=ann)["prompt_cache_key"] == "response"
        found = live.get("/v1/cache?prompt_cache_key=k", authorization=ann).json["requests"]
        count = record["prompts"][0]["prompt_tokens"]
        assert found == {
            "prompt_cache_key": "k", "num_requests": 2, "prompt_tokens": 2 * count,
            "matched_tokens": count - 1,
        }  # fmt: skip
        theirs = live.get("/v1/cache?prompt_cache_key=k", authorization=bob).json["requests"]
        assert (theirs["num_requests"], theirs["matched_tokens"]) == (0, 0)
        assert "requests" not in live.get("/v1/cache", authorization=ann).json
        body = {"prompt": "x", "prompt_cache_key": "k" * 257}
        assert live.post(COMPLETIONS, body, authorization=ann).json["error"]["param"] == (
            "prompt_cache_key"
        )


@pytest.mark.parametrize("path", [COMPLETIONS, "/v1/chat/completions"])
def test_a_stream_tells_the_same_where_it_is_asked(live: Live, path: str) -> None:
    text = f"a stream at {path}"
    asked = (
        {"prompt": text}
        if path == COMPLETIONS
        else {"messages": [{"role": "user", "content": text}]}
    )
    body = {**asked, "max_tokens": 1, "stream": True}
    live.post(path, body)
    options = {"include_usage": True, "include_cache": True}
    found = live.post(path, {**body, "stream_options": options})
    *_, last, done = found.events
    assert done == "[DONE]"
    assert last["choices"] == []
    matched = last["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert matched == last["usage"]["prompt_tokens"] - 1
    assert (last["cache"]["matched_tokens"], last["cache"]["source"]) == (matched, "process")
    (own,) = kept(live, found.headers["x-request-id"])["prompts"]
    assert own["cache"] == last["cache"]


def test_the_servers_own_ids(live: Live) -> None:
    body = {"prompt": ["a", "b"], "max_tokens": 1}
    found = live.post(COMPLETIONS, body)
    for id in (found.headers["x-request-id"], found.json["id"]):
        assert len(kept(live, id)["prompts"]) == 2


def test_a_message_is_found_by_its_own_id(live: Live) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, "model": "tiny"}
    found = live.post("/v1/messages", body).json
    assert found["id"].startswith("msg_")
    assert kept(live, found["id"])["route"] == "/v1/messages"


def test_inputs_of_embeddings_are_kept_too(live: Live) -> None:
    body = {"input": [[1 + i % 50] for i in range(70)]}  # more than are asked at once
    found = live.post("/v1/embeddings", body, x_request_id="embedded")
    assert found.status == 200
    record = kept(live, "embedded")
    assert [each["prompt_tokens"] for each in record["prompts"]] == [1] * 70
    assert all(each["cache"] for each in record["prompts"])


def test_another_tenants_record_is_404(tiny_path: Path) -> None:
    with Live(tiny_path, keys=Keys([ANN, BOB])) as live:
        live.post(COMPLETIONS, {"prompt": "x", "max_tokens": 1}, x_api_key=ANN, x_request_id="it")
        assert kept(live, "it", x_api_key=ANN)["id"] == "it"
        other = live.get("/v1/cache/requests/it", x_api_key=BOB)
        none = live.get("/v1/cache/requests/none", x_api_key=BOB)
        assert (other.status, other.error) == (none.status, none.error)
        assert other.status == 404


def test_a_client_that_left_has_a_record(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(live, monkeypatch, {"prompt": "x"}, x_request_id="left")
    assert kept(live, "left")["status"] == 499


def ended(id: str, tenant: str = "", prompts: int = 1) -> Outcome:
    outcome = Outcome(id, tenant, "POST", "/")
    outcome.ask([[1]] * prompts, [Never()] * prompts)
    return outcome


class Never:
    cache = None


def test_the_last_ones_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST", 3)
    records = History()
    for id in ("a", "b", "c", "b", "d"):  # the second b takes the place of the first
        records.add(ended(id))
    records.add(ended("e", "another"))
    assert [id for id in "abcde" if records.find("", id)] == ["b", "c", "d"]
    assert records.find("another", "e")
    monkeypatch.setattr(history, "MOST_BYTES", 1000)
    records.add(ended("long", prompts=100))
    assert [id for id in ("b", "c", "d", "long") if records.find("", id)] == ["long"]
    records.add(ended("f"))
    assert [id for id in ("long", "f") if records.find("", id)] == ["f"]
