"""/v1/chat/completions: the body in, the response out.

Messages become what chat templates read, `role` and `content` as text (and `name`, where given):
text parts are joined by a newline, and "developer" is read as "system", the role that open models
were trained on. Tools, images and audio are refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from octavo.protocol.bodies import BodyError, Fields, kind_of, read_fields, read_flag
from octavo.protocol.responses import FINISH_REASONS, Vocabulary, finite, usage_of
from octavo.protocol.sampling import (
    SHARED_FIELDS,
    Streaming,
    read_model,
    read_options,
    read_params,
    read_streaming,
)
from octavo.request import Completion, RequestOptions, RequestOutput, TokenLogprobs
from octavo.sampling_params import SamplingParams

_FIELDS = (
    *("messages", "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs"),
    *SHARED_FIELDS,
)
_ROLES = MappingProxyType(
    {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    model: str | None
    messages: tuple[dict[str, str], ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    options: RequestOptions = field(default_factory=lambda: RequestOptions(begins_turn=True))
    stream: Streaming = field(default_factory=Streaming)


def parse_chat(body: object) -> ChatRequest:
    """Raises BodyError, which names the field."""
    fields = read_fields(body, _FIELDS)
    limit = _read_limit(fields)
    own = {"max_tokens": fields.get(limit), "logprobs": _read_logprobs(fields)}
    spelling = {"max_tokens": limit, "logprobs": "top_logprobs"}
    return ChatRequest(
        model=read_model(fields),
        messages=_read_messages(fields.get("messages")),
        params=read_params(fields, own, spelling),
        options=replace(read_options(fields), begins_turn=True),
        stream=read_streaming(fields),
    )


def chat_response(
    output: RequestOutput, *, id: str, created: int, model: str, vocabulary: Vocabulary
) -> dict[str, object]:
    """`created` in seconds since 1970. For an output whose `failure` is None."""
    return {
        "id": id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [
            _choice(index, completion, vocabulary)
            for index, completion in enumerate(output.outputs)
        ],
        "usage": usage_of([output]),
    }


def _choice(index: int, completion: Completion, vocabulary: Vocabulary) -> dict[str, object]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": completion.text, "refusal": None},
        "logprobs": _logprobs(completion.logprobs, vocabulary),
        "finish_reason": FINISH_REASONS[completion.finish_reason],
    }


def _logprobs(
    tokens: Sequence[TokenLogprobs] | None, vocabulary: Vocabulary
) -> dict[str, object] | None:
    if tokens is None:
        return None
    content = []
    for token in tokens:
        top = [_token(token_id, logprob, vocabulary) for token_id, logprob in token.top]
        own = _token(token.token_id, token.logprob, vocabulary)
        content.append({**own, "top_logprobs": top})
    return {"content": content, "refusal": None}


def _token(token_id: int, logprob: float, vocabulary: Vocabulary) -> dict[str, object]:
    data = vocabulary.token_bytes(token_id)
    text = data.decode("utf-8", "replace")  # a token may end inside a character: see `bytes`
    return {"token": text, "logprob": finite(logprob), "bytes": list(data)}


def _read_limit(fields: Fields) -> str:
    """Which of its two names the body uses."""
    if "max_tokens" in fields and "max_completion_tokens" in fields:
        raise BodyError(
            "max_tokens is the old name of max_completion_tokens: give one of them", "max_tokens"
        )
    return "max_tokens" if "max_tokens" in fields else "max_completion_tokens"


def _read_logprobs(fields: Fields) -> object:
    if read_flag(fields, "logprobs"):
        return fields.get("top_logprobs", 0)
    if fields.get("top_logprobs", 0) != 0:
        raise BodyError("top_logprobs needs logprobs: true", "top_logprobs")
    return None


def _read_messages(messages: object) -> tuple[dict[str, str], ...]:
    if messages is None:
        raise BodyError('messages is missing: give a list of {"role": …, "content": …}', "messages")
    if not isinstance(messages, list):
        raise BodyError(f"messages: expected a list, found {kind_of(messages)}", "messages")
    if not messages:
        raise BodyError("messages: expected at least one", "messages")
    return tuple(_read_message(f"messages[{i}]", each) for i, each in enumerate(messages))


def _read_message(where: str, message: object) -> dict[str, str]:
    if not isinstance(message, dict):
        raise BodyError(f"{where}: expected an object, found {kind_of(message)}", where)
    given = {name: value for name, value in message.items() if value is not None}
    for name in given.keys() - {"role", "content", "name"}:
        raise BodyError(f"{where}.{name} is not supported: leave it out", f"{where}.{name}")
    role = given.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise BodyError(f"{where}.role: expected one of {', '.join(_ROLES)}", f"{where}.role")
    found = {"role": _ROLES[role], "content": _read_content(where, given.get("content"))}
    if "name" in given:
        if not isinstance(given["name"], str):
            kind = kind_of(given["name"])
            raise BodyError(f"{where}.name: expected a string, found {kind}", f"{where}.name")
        found["name"] = given["name"]
    return found


def _read_content(where: str, content: object) -> str:
    place = f"{where}.content"
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        kind = "an empty list" if content == [] else kind_of(content)
        raise BodyError(f"{place}: expected a string or a list of text parts, found {kind}", place)
    return "\n".join(_read_part(f"{place}[{i}]", part) for i, part in enumerate(content))


def _read_part(where: str, part: object) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(part, dict) or kind != "text":
        what = f"parts of type {kind!r} are not supported" if isinstance(kind, str) else "no part"
        raise BodyError(f'{where}: {what}: expected {{"type": "text", "text": …}}', where)
    text, place = part.get("text"), f"{where}.text"
    if not isinstance(text, str):
        raise BodyError(f"{place}: expected a string, found {kind_of(text)}", place)
    return text
