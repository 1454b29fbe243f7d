"""The page's files: what they say to a browser, and that they need nothing else."""

from __future__ import annotations

import re

import pytest

from tests.server.live import Live

SCRIPTS = (("/page.js", "text/javascript"), ("/answer.js", "text/javascript"))
FILES = (("/", "text/html"), *SCRIPTS, ("/page.css", "text/css"))
POLICY = {
    "default-src": "'none'", "script-src": "'self'", "style-src": "'self'",
    "connect-src": "'self'", "img-src": "'self'", "base-uri": "'none'", "form-action": "'none'",
    "frame-ancestors": "'none'",
}  # fmt: skip


@pytest.mark.parametrize(("path", "kind"), FILES)
def test_each_file_comes_with_the_policy(live: Live, path: str, kind: str) -> None:
    answer = live.get(path)
    assert (answer.status, answer.headers["content-type"]) == (200, f"{kind}; charset=utf-8")
    rules = answer.headers["content-security-policy"].split("; ")
    assert dict(rule.split(" ", 1) for rule in rules) == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert len(answer.body) == int(answer.headers["content-length"])


def test_there_are_no_others_and_they_are_only_read(live: Live) -> None:
    assert live.get("/page.map").status == 404
    assert live.get("/page").status == 404
    assert live.post("/", {}).status == 405


def test_it_names_no_other_server_and_no_path_from_the_root(live: Live) -> None:
    """So that it works as well behind a proxy that serves it under a path."""
    html, script, answer, style = (live.get(path).body.decode() for path, _ in FILES)
    assert re.findall(r'(?:src|href)="([^"]*)"', html) == ["page.css", "page.css", "page.js"]
    assert re.findall(r'call\("([^"]*)"', script) == ["v1/models", "v1/chat/completions"]
    imports = re.findall(r"\bimport\b.*", script + answer)
    assert [each.rpartition(" from ")[2] for each in imports] == ['"./answer.js";']
    for text in (html, script, answer, style):
        assert not re.search(r"https?:|//\w+\.\w|url\(|@import", text)


def test_no_text_becomes_html_and_nothing_is_written_in_line(live: Live) -> None:
    html, *scripts = (live.get(path).body.decode() for path, _ in FILES[:-1])
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|eval|new Function"
    assert not [script for script in scripts if re.search(sinks, script)]
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", html)
