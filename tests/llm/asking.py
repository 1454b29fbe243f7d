"""A prompt and how it is drawn; what was computed, what was answered, and that nothing is left."""

from __future__ import annotations

from octavo import LLM, SamplingParams
from octavo.request import RequestOutput

PROMPT = list(range(40))
GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)


def computed(llm: LLM, since: int = 0) -> list[int]:
    return [r.computed_tokens for r in llm.records[since:]]


def tokens(output: RequestOutput) -> list[tuple[int, ...]]:
    return [answer.token_ids for answer in output.outputs]


def nothing_is_left(llm: LLM) -> None:
    assert llm.stats()["kv_blocks_used"] == 0
    assert llm.loop.num_open == 0
    llm.loop.call(llm.loop.engine.check_integrity)
