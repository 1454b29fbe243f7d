"""What of a conversation `octavo chat --json` printed."""

from __future__ import annotations


def said(result) -> list[str]:
    return [m["content"] for m in result.json["messages"] if m["role"] == "user"]
