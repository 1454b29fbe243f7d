"""One request against a server that misbehaves in each way; and what is sent to it."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from octavo.bench.server_load.asks import Ask
from octavo.bench.server_load.client import connect
from octavo.bench.server_load.config import LoadConfig
from octavo.bench.server_load.stream import AskError, Reply, Usage, read_reply
from octavo.errors import UsageError
from tests.bench.server_load.fake_server import (
    DONE,
    HANG,
    OK,
    WHOLE,
    answer,
    serving,
    stream,
    text,
    usage,
)

KEY_HINT = "; --api-key, OCTAVO_API_KEY or OPENAI_API_KEY has the key"


def ask(url: str, key: str | None = None, **choices: Any) -> Reply:
    async def one() -> Reply:
        async with connect(url, key, LoadConfig(**choices)) as client:
            return read_reply(await client.ask(client.body(Ask("hi", 2), "m")))

    return asyncio.run(one())


def models(url: str) -> list[str]:
    async def listed() -> list[str]:
        async with connect(url, None, LoadConfig()) as client:
            return await client.models()

    return asyncio.run(listed())


@pytest.mark.parametrize("slash", ["", "/", "/v1", "/v1/"])
def test_a_completion_and_what_is_sent_for_it(slash: str) -> None:
    with serving(WHOLE) as server:
        found = ask(server.url + slash, key="k-1")
    assert (len(found.texts), found.usage) == (2, Usage(5, 2, None))
    assert found.began < found.texts[0] <= found.texts[1]
    (head,) = server.heads
    assert head.startswith("POST /v1/completions HTTP/1.1\r\n")
    assert "\r\nauthorization: bearer k-1\r\n" in head.lower()
    assert "\r\naccept-encoding: identity\r\n" in head.lower()
    assert server.bodies == [
        {"model": "m", "prompt": "hi", "max_tokens": 2, "temperature": 0, "stream": True,
         "stream_options": {"include_usage": True}, "ignore_eos": True}
    ]  # fmt: skip


def test_a_chat_and_what_is_sent_for_it() -> None:
    with serving(WHOLE, path="/v1/chat/completions") as server:
        ask(server.url, endpoint="chat", ignore_eos=False)
    (body,) = server.bodies
    assert body["messages"] == [{"role": "user", "content": "hi"}]
    assert "prompt" not in body
    assert "ignore_eos" not in body
    assert "authorization" not in server.heads[0].lower()


def test_a_path_before_the_routes_is_kept() -> None:
    with serving(WHOLE, path="/llm/v1/completions") as server:
        ask(f"{server.url}/llm/v1")
    assert server.heads[0].startswith("POST /llm/v1/completions ")


def test_a_unix_socket(tmp_path: Path) -> None:
    with pytest.raises(AskError, match=r"no server answers \(no such file or directory\)"):
        ask(f"unix:{tmp_path}/none.sock")


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        (b"", "it closed the connection before it answered"),
        (b"SSH-2.0-x\r\n", "what it sends is no HTTP"),
        (answer("<html>hi</html>"), "expected a stream of events, it sent '<html>hi</html>'"),
        (answer(""), "expected a stream of events, it sent nothing"),
        (stream("data: {]\n\n"), "expected events of JSON objects: it sent '{]'"),
        (stream(text("a"), DONE), "its stream had no usage, so no token is counted: it has to "
                                  "know stream_options.include_usage"),
        (stream(text("a")), "its stream ended without usage and [DONE]: the answer is cut off"),
        (stream(text("a"), whole=False), "its answer broke off"),
        (stream('data: {"error": {"message": "no room"}}\n\n', whole=False),
         "its stream ended with an error: no room"),
        (stream(usage(), DONE), "its answer had no text"),
        (answer('{"error": {"message": "too long"}}', "400 Bad Request"), "HTTP 400: too long"),
        (answer('{"error": {"message": "unknown argument: ignore_eos"}}', "400 Bad Request"),
         "HTTP 400: unknown argument: ignore_eos; --no-ignore-eos leaves it out"),
        (answer('{"error": {"message": "no key"}}', "401 Unauthorized"),
         f"HTTP 401: no key{KEY_HINT}"),
        (answer("", "403 Forbidden"), f"HTTP 403: Forbidden{KEY_HINT}"),
        (answer('{"detail": "Not Found"}', "404 Not Found"),
         "HTTP 404: Not Found; URL is what stands before /v1, --endpoint and --model say what is "
         "asked"),
        (answer("full", "429 Too Many Requests"),
         "HTTP 429: 'full'; --concurrency or --rate asks less of it at once"),
        (answer("down", "503 Service Unavailable"), "HTTP 503: 'down'"),
        (answer("", "307 Temporary Redirect", "location: http://other/"),
         "HTTP 307: it sends to http://other/"),
    ],
)  # fmt: skip
def test_a_server_that_does_not_answer_is_told_of(sent: bytes, complaint: str) -> None:
    with serving(sent) as server, pytest.raises(AskError) as caught:
        ask(server.url)
    assert str(caught.value) == complaint


def test_silence_ends_a_request() -> None:
    with serving(OK + HANG) as server, pytest.raises(AskError, match="silent for too long"):
        ask(server.url, timeout=0.05)


def test_an_answer_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octavo.bench.server_load.client.MOST_BYTES", 1000)
    with serving(stream(*[text("a")] * 100)) as server, pytest.raises(AskError, match="more than"):
        ask(server.url)


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(AskError) as caught:
            ask(url)
    assert str(caught.value) == (
        "no server answers (connection refused): start it first, or mend the URL"
    )


def test_tls_to_a_server_that_has_none() -> None:
    with serving(WHOLE) as server, pytest.raises(AskError, match=r"no server answers \(tls: "):
        ask(server.url.replace("http:", "https:"))


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8000", "ftp://x", "http://", "http://x:port", "http://me@x", "http://:key@x",
     "http://x?y", "http://a..b", f"http://{64 * 'a'}", "http://\ud800", "unix:"],
)  # fmt: skip
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="expected http://HOST:PORT"):
        ask(url)


@pytest.mark.parametrize("key", ["a\nb", "\u00e9", "\x7f"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match="expected plain letters alone"):
        ask("http://127.0.0.1:1", key=key)


@pytest.mark.parametrize(
    ("sent", "found"),
    [('{"data": [{"id": "a"}, {"id": "b"}]}', ["a", "b"]), ('{"data": []}', [])],
)
def test_models_are_listed(sent: str, found: list[str]) -> None:
    with serving(WHOLE, models=answer(sent)) as server:
        assert models(server.url) == found


@pytest.mark.parametrize("sent", ["", "hi", "[]", '{"data": 3}', '{"data": [3]}', "[" * 100_000])
def test_what_is_no_list_of_models_is_told(sent: str) -> None:
    with serving(WHOLE, models=answer(sent)) as server, pytest.raises(AskError) as caught:
        models(server.url)
    assert str(caught.value).startswith("expected a list of models at /v1/models, it sent '")
    assert str(caught.value).endswith("--model names one that is not listed")
