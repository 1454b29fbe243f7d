"""Bodies of /v1/messages, and what becomes of them."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.protocol.bodies import BodyError
from octavo.protocol.messages.request import MessagesRequest, parse_messages

USER: dict[str, Any] = {"role": "user", "content": "hi"}
EPHEMERAL = {"type": "ephemeral"}
ADD = {"name": "add", "input_schema": {"type": "object", "properties": {}}}


def text(said: str, **more: object) -> dict[str, object]:
    return {"type": "text", "text": said, **more}


def user(*blocks: object) -> dict[str, object]:
    return {"role": "user", "content": list(blocks)}


def parse(*messages: object, **fields: object) -> MessagesRequest:
    return parse_messages({"max_tokens": 9, "messages": list(messages) or [USER], **fields})


def refusal(*messages: object, **fields: object) -> tuple[str, str | None]:
    with pytest.raises(BodyError) as caught:
        parse(*messages, **fields)
    return str(caught.value), caught.value.param
