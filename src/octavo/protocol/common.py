"""What all response bodies share: usage, finish reasons, tokens as text, and errors.

OpenAI's clients know "stop" and "length". A request that met its deadline was cut short by a limit,
so it says "length", and `ended_by` which one it was. "abort" and "error" are no answers: `failure`
says so, and the caller responds with an error body.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from octavo.errors import (
    ConstraintError,
    EngineClosedError,
    ModelNotFoundError,
    OctavoError,
    OutOfMemoryError,
    OverloadedError,
    PromptTooLongError,
    UsageError,
)
from octavo.protocol.bodies import BodyError
from octavo.records import CacheSource
from octavo.request import FinishReason, Progress, RequestOutput

FINISH_REASONS: Mapping[FinishReason, str] = MappingProxyType(
    {"stop": "stop", "length": "length", "deadline": "length"}
)
_STATUS: Mapping[type[OctavoError], int] = MappingProxyType(
    {
        ModelNotFoundError: 404,
        UsageError: 400,
        ConstraintError: 400,  # sent again as it is it may end so again
        OutOfMemoryError: 400,
        OverloadedError: 429,
        EngineClosedError: 503,
    }
)
_LONGEST = 1000  # characters that an error tells, which may quote what is wrong
_LEAST_LOGPROB = -9999.0  # OpenAI's "very unlikely"; JSON has no infinity


class Vocabulary(Protocol):
    """What a response needs of the tokenizer."""

    def token_bytes(self, token_id: int) -> bytes: ...
    def is_control(self, token_id: int) -> bool: ...
    def decode(self, ids: Iterable[int]) -> str: ...


def usage_of(outputs: Sequence[RequestOutput]) -> dict[str, object]:
    """The sum over the prompts of one body; a prompt counts once, whatever `n` is."""
    prompt = sum(output.usage.prompt_tokens for output in outputs)
    completion = sum(output.usage.completion_tokens for output in outputs)
    cached = sum(output.usage.cached_tokens for output in outputs)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": 0},  # but where it is told apart
    }


def cache_of(outputs: Sequence[RequestOutput]) -> dict[str, object]:
    """What the cache gave, by the names of CacheRecord: sums over the prompts of one body, and the
    first of their sources and reasons."""
    records = [output.cache for output in outputs]
    found = next((each.source for each in records if each.matched_tokens), CacheSource.NONE)
    missed = next((each for each in records if each.reason is not None), records[0])
    saved = [each.saved_ms for each in records if each.saved_ms is not None]
    let_go = [each.let_go_tokens for each in records if each.let_go_tokens is not None]
    return {
        "matched_tokens": sum(each.matched_tokens for each in records),
        "source": found,
        "reason": missed.reason,
        "diverged_at": missed.diverged_at,
        "diverged_text": missed.diverged_text,
        "saved_ms": sum(saved) if saved else None,
        "known_tokens": missed.known_tokens,
        "sliding_context": records[0].sliding_context,
        "let_go_tokens": sum(let_go) if let_go else None,
    }


def ended_by(outputs: Iterable[RequestOutput]) -> dict[str, object]:
    """What cut an answer short, where no finish reason of an API has a word for it."""
    reasons = {each.finish_reason for output in outputs for each in output.outputs}
    return {"ended_by": "deadline"} if "deadline" in reasons else {}


def progress_of(progress: Progress) -> dict[str, object]:
    """How far a prompt is, as llama.cpp tells it."""
    return {
        "total": progress.total,
        "cache": progress.cached,
        "processed": progress.processed,
        "time_ms": progress.time_ms,
        "eta_ms": progress.eta_ms,
    }


def failure(outputs: Iterable[RequestOutput]) -> OctavoError | None:
    """Return why there is no answer to give, if one of these was broken off."""
    for output in outputs:
        for completion in output.outputs:
            if completion.finish_reason not in FINISH_REASONS:
                why = output.error or f"the request ended early: {completion.finish_reason}"
                is_grammar = output.error_type == ConstraintError.__name__
                return ConstraintError(why) if is_grammar else ApiError(500, why)
    return None


def finite(logprob: float) -> float:
    return max(logprob, _LEAST_LOGPROB)


class ApiError(OctavoError):
    """An error that is only an API's: the status and the code are its own."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,  # seconds
        allow: Sequence[str] = (),  # methods in place of one that is not taken
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after
        self.allow = allow


def error_body(error: OctavoError) -> dict[str, object]:
    """Return the error in OpenAI's schema, for the status that `status_of` says."""
    status = status_of(error)
    kind = "invalid_request_error" if status < 500 else "server_error"
    if status == 429:
        kind = "rate_limit_error"
    told = {"message": message_of(error), "type": kind, "param": param_of(error)}
    return {"error": {**told, "code": error_code(error)}}


def message_of(error: OctavoError) -> str:
    """What is told of an error, however long the value is that it quotes."""
    # By these words clients of both APIs know that they must shorten the conversation.
    why = "prompt is too long: " if isinstance(error, PromptTooLongError) else ""
    return _cut(f"{why}{error}")


def param_of(error: OctavoError) -> str | None:
    """The field that is wrong, by its whole path."""
    if isinstance(error, BodyError | ApiError):
        return None if error.param is None else _cut(error.param)
    return "model" if isinstance(error, ModelNotFoundError) else None


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def error_code(error: OctavoError) -> str | None:
    """OpenAI's code where it has one that clients look for."""
    if isinstance(error, ApiError):
        return error.code
    if isinstance(error, PromptTooLongError):
        return "context_length_exceeded"
    if isinstance(error, ConstraintError):
        return "grammar_failed"
    return "model_not_found" if isinstance(error, ModelNotFoundError) else None


def status_of(error: OctavoError) -> int:
    """The HTTP status: whether the request must change (4xx), may be sent again later (429, 503),
    or the machine failed (500)."""
    if isinstance(error, ApiError):
        return error.status
    for kind, status in _STATUS.items():
        if isinstance(error, kind):
            return status
    return 500
