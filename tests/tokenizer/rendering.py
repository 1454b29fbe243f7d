"""A chat template rendered for a message of a user."""

from __future__ import annotations

from typing import Any

from octavo.tokenizer import ChatTemplate

USER = [{"role": "user", "content": "hi"}]


def render(source: str, messages: Any = USER) -> str:
    return ChatTemplate(source, "", "").render(messages)
