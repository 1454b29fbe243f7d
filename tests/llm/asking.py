"""A prompt, what was computed for it, and what was answered."""

from __future__ import annotations

from octavo import LLM, RequestOutput

PROMPT = list(range(40))


def computed(llm: LLM, since: int = 0) -> list[int]:
    return [r.computed_tokens for r in llm.records[since:]]


def tokens(output: RequestOutput) -> list[tuple[int, ...]]:
    return [answer.token_ids for answer in output.outputs]
