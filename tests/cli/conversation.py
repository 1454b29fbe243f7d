"""What of a conversation `octavo chat --json` printed."""

from __future__ import annotations

from tests.cli.result import Result


def texts(result: Result) -> list[str]:
    return [message["content"] for message in result.json["messages"]]


def said(result: Result) -> list[str]:
    return [m["content"] for m in result.json["messages"] if m["role"] == "user"]
