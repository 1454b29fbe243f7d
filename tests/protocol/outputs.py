"""What a model might have answered, and a vocabulary of a few tokens, for tests of bodies."""

from __future__ import annotations

from collections.abc import Iterable

from octavo.records import CacheRecord
from octavo.request import Completion, Metrics, RequestOutput, TokenLogprobs, Usage

EURO = "€".encode()  # three bytes


class Words:
    """Token ids are indices of `PIECES`; the last one ends a turn."""

    PIECES: tuple[bytes, ...] = (b"Hi", b" there", EURO[:1], EURO[1:], b" ", b"<end>")

    def token_bytes(self, token_id: int) -> bytes:
        return self.PIECES[token_id]

    def is_control(self, token_id: int) -> bool:
        return token_id == len(self.PIECES) - 1

    def decode(self, ids: Iterable[int]) -> str:
        shown = (self.PIECES[i] for i in ids if not self.is_control(i))
        return b"".join(shown).decode("utf-8", "replace")


def token(token_id: int, logprob: float, *top: tuple[int, float]) -> TokenLogprobs:
    return TokenLogprobs(token_id, logprob, top)


def completion(
    text: str, *logprobs: TokenLogprobs, reason: str = "stop", wanted: bool = False
) -> Completion:
    ids = tuple(each.token_id for each in logprobs)
    return Completion(text, ids, logprobs if wanted else None, reason)  # type: ignore[arg-type]


def output(
    *completions: Completion,
    prompt: tuple[int, ...] = (0, 1),
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None,
    usage: tuple[int, int, int] = (9, 4, 8),
    error: str | None = None,
) -> RequestOutput:
    metrics = Metrics(None, None, None, None, 0)
    return RequestOutput(
        prompt, completions, Usage(*usage), CacheRecord(), metrics, 5, prompt_logprobs, error
    )
