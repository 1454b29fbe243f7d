"""Bodies that the tests of /v1/messages send, and where to."""

from __future__ import annotations

from typing import Any

MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
HI: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
SHORT: dict[str, Any] = {**HI, "max_tokens": 6}
PAIR = {"type": "object", "additionalProperties": False, "required": ["a", "b"],
        "properties": {"a": {"type": "boolean"}, "b": {"enum": ["x", "y"]}}}  # fmt: skip
TOOLS: list[Any] = [
    {"name": "pair", "description": "Pairs", "input_schema": PAIR, "strict": True},
    {"name": "now", "input_schema": {"type": "object", "properties": {}}},
]
