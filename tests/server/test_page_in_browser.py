"""The page in a headless Chromium, where there is one with Playwright: what a person does and sees.

Answers are the tiny model's; where a story needs certain words, they are given in its place.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from octavo.server.auth import Keys
from tests.gate import PATIENCE
from tests.server.live import Live, slowed

sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright and a Chromium")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("needs a Chromium on the path", allow_module_level=True)

KEY = "page-0123456789abcdef"
ENDED = "article:last-child .end"
WHOLE = {"stream": False, "stream_options": None, "return_progress": None}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


class Tab:
    """A fresh tab at a server's page; what its console says and whom it asks is kept."""

    def __init__(self, browser: Any, url: str) -> None:
        self.page = browser.new_context().new_page()
        self.page.set_default_timeout(PATIENCE * 1e3)
        self.asked: list[Any] = []
        self.said: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request))
        self.page.goto(url)

    def close(self) -> None:
        self.page.context.close()

    def set(self, **values: object) -> None:
        self.page.click("#settings summary")
        for name, value in values.items():
            self.page.fill(f"[name={name}]", str(value))
        self.page.keyboard.press("Escape")

    def send(self, text: str) -> None:
        self.page.fill("#box", text)
        self.page.press("#box", "Enter")

    def text(self, where: str) -> str:
        found: str = self.page.inner_text(where)
        return found

    @property
    def bodies(self) -> list[Any]:
        """Of the chats that were asked."""
        posted = [each for each in self.asked if each.method == "POST"]
        return [json.loads(each.post_data) for each in posted]

    def answer_with(self, *deltas: dict[str, str], ends: bool = True) -> None:
        """Let the next chats be answered so."""
        chunks = [{"choices": [{"index": 0, "delta": each}]} for each in deltas]
        frames = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
        frames += "data: [DONE]\n\n" if ends else ""
        kind = {"content-type": "text/event-stream"}
        self.page.route("**/chat/completions", lambda r: r.fulfill(body=frames, headers=kind))


@pytest.fixture
def tab(browser: Any, live: Live) -> Iterator[Tab]:
    with closing(Tab(browser, live.url)) as found:
        yield found
        assert found.said == []
        assert {each.url.startswith(live.url) for each in found.asked} == {True}


def test_an_answer_streams_and_shows_what_the_cache_gave(tab: Tab, live: Live) -> None:
    tab.page.wait_for_selector("#model:not(:empty)")
    assert tab.text("#model").startswith("tiny, 128 tokens")
    tab.set(seed=7, max_tokens=5, temperature=1.5, system="be brief")
    tab.send("hello there")
    tab.page.wait_for_selector(ENDED)
    (asked,) = tab.bodies
    assert asked["messages"] == [
        {"role": "system", "content": "be brief"}, {"role": "user", "content": "hello there"}
    ]  # fmt: skip
    assert (asked["seed"], asked["max_tokens"], asked["temperature"]) == (7, 5, 1.5)
    tab.page.click("text=Regenerate")
    tab.page.wait_for_selector(ENDED)
    assert tab.bodies == [asked, asked]
    usage = live.post("/v1/chat/completions", {**asked, **WHOLE})
    figures = tab.text(f"{ENDED} p")
    cached = usage.json["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert f"{cached} of {usage.json['usage']['prompt_tokens']} prompt tokens cached" in figures
    assert "first token after" in figures
    assert "5 tokens" in figures
    assert tab.page.locator("article").count() == 2


def test_escape_stops_and_what_came_stays(
    tab: Tab, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live.llm.loop.engine, "step", slowed(live, 0.05))
    tab.send("go on and on")
    tab.page.wait_for_selector(".text p")
    assert not tab.page.is_visible(".waits")  # the prompt is read
    tab.page.keyboard.press("Escape")
    tab.page.wait_for_selector(ENDED)
    assert "stopped" in tab.text(ENDED)
    assert tab.page.is_visible("#send")
    tab.send("more")
    tab.page.click("#stop")
    tab.page.wait_for_selector("#send")
    assert [each["role"] for each in tab.bodies[-1]["messages"]] == ["user", "assistant", "user"]
    tab.page.click("text=New chat")
    assert tab.page.locator("article").count() == 0


def test_it_shows_how_far_the_prompt_is(
    browser: Any, roomy_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Live(roomy_path, rows=16) as live, closing(Tab(browser, live.url)) as tab:
        monkeypatch.setattr(live.llm.loop.engine, "step", slowed(live, 0.05))
        tab.set(max_tokens=2)
        tab.send("x" * 480)
        tab.page.wait_for_selector("progress[value]")
        assert re.match(r"Reading the prompt: \d+ of \d+ tokens", tab.text(".waits"))
        tab.page.wait_for_selector(ENDED)
        assert tab.page.locator(".waits").count() == 0


def test_what_a_model_says_stays_text(tab: Tab) -> None:
    hostile = "<img src=x onerror=alert(1)> `<b>` **<i>**\n\n```\n<script>alert(2)</script>\n```"
    tab.answer_with({"reasoning_content": hostile}, {"content": hostile})
    tab.send(hostile)
    tab.page.wait_for_selector(ENDED)
    assert tab.page.locator("main :is(img, script, b, i)").count() == 0
    assert tab.text(".user") == hostile
    assert tab.text(".text p") == "<img src=x onerror=alert(1)> <b> <i>"
    assert tab.text(".text pre") == "<script>alert(2)</script>"
    assert not tab.page.is_visible(".thought p")  # folded
    tab.page.click(".thought summary")
    assert tab.text(".thought p") == hostile


def test_a_stream_that_breaks_is_not_taken_for_whole(tab: Tab) -> None:
    tab.answer_with({"content": "half an"}, ends=False)
    tab.send("hi")
    tab.page.wait_for_selector("#status.trouble")
    assert "broken off" in tab.text(ENDED)
    assert tab.text(".text") == "half an"


def test_an_error_is_told_and_the_question_comes_back(tab: Tab) -> None:
    tab.send("x" * 300)
    tab.page.wait_for_selector("#status.trouble")
    assert "the context holds 128" in tab.text("#status")
    assert tab.page.input_value("#box") == "x" * 300
    assert tab.page.locator("article").count() == 0
    assert "400 (Bad Request)" in tab.said.pop()  # by the browser itself


def test_a_restart_of_the_server_is_told_and_survived(browser: Any, tiny_path: Path) -> None:
    with Live(tiny_path) as first:
        tab = Tab(browser, first.url)
        tab.set(max_tokens=3)
        tab.send("hi")
        tab.page.wait_for_selector(ENDED)
    tab.send("are you there?")
    tab.page.wait_for_selector("#status.trouble")
    assert "no connection" in tab.text("#status")
    assert tab.page.input_value("#box") == "are you there?"
    with Live(tiny_path, port=first.port):
        tab.page.press("#box", "Enter")
        tab.page.wait_for_selector("article:nth-child(4) .end")
        assert not tab.page.is_visible("#status.trouble")
        assert tab.page.locator("article").count() == 4
        tab.close()


def test_where_keys_are_on_it_asks_for_one(browser: Any, tiny_path: Path) -> None:
    with Live(tiny_path, keys=Keys([KEY])) as locked, closing(Tab(browser, locked.url)) as tab:
        tab.page.wait_for_selector("#door[open]")
        tab.page.fill("#key", "wrong")
        tab.page.press("#key", "Enter")
        tab.page.wait_for_selector("text=the API key is wrong")
        tab.page.fill("#key", KEY)
        tab.page.press("#key", "Enter")
        tab.page.wait_for_selector("#model:not(:empty)")
        assert not tab.page.is_visible("#door")
        tab.set(max_tokens=2)
        tab.send("hi")
        tab.page.wait_for_selector(ENDED)
        tab.page.reload()
        tab.page.wait_for_selector("#model:not(:empty)")
        assert tab.page.input_value("[name=max_tokens]") == "2"
