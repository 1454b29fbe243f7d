"""Batch files for tests, and how their results are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def plain(custom_id: str, prompt: object, **body: object) -> str:
    return line(custom_id, "/v1/completions", {"model": "m", "prompt": prompt, **body})


def chat(custom_id: str, content: str, **body: object) -> str:
    messages = [{"role": "user", "content": content}]
    return line(custom_id, "/v1/chat/completions", {"model": "m", "messages": messages, **body})


def line(custom_id: str, url: str, body: object) -> str:
    request = {"custom_id": custom_id, "method": "POST", "url": url, "body": body}
    return json.dumps(request, ensure_ascii=False)


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(text + "\n" for text in lines), encoding="utf-8")
    return path


def results(path: Path) -> list[Any]:
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]


def said(path: Path) -> list[tuple[str | None, list[str] | str]]:
    """(custom_id, texts) of each result, or (custom_id, what its error says)."""
    found = []
    for result in results(path):
        if result["error"] is not None:
            found.append((result["custom_id"], result["error"]["message"]))
            continue
        choices = result["response"]["body"]["choices"]
        texts = [c["text"] if "text" in c else c["message"]["content"] for c in choices]
        found.append((result["custom_id"], texts))
    return found
