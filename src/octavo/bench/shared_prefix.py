"""Prompts that begin alike, run with the prefix cache and without it, in turns.

Knows the public API and a clock. Prompts are random tokens, new ones in every round, so that each
round begins with nothing in the cache. Both engines draw the same tokens, or something is wrong.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from octavo.bench.workloads import greedy, random_prompt
from octavo.request import RequestOutput

if TYPE_CHECKING:
    from octavo.serving.llm import LLM


@dataclass(frozen=True, slots=True)
class Workload:
    shared: int  # tokens that all prompts of a round begin with
    own: int  # tokens of each prompt after them
    prompts: int
    new_tokens: int  # of each answer

    def batch(self, vocab_size: int, seed: int) -> list[list[int]]:
        first = random_prompt(vocab_size, self.shared, seed)
        seeds = range(seed * self.prompts, (seed + 1) * self.prompts)
        return [first + random_prompt(vocab_size, self.own, -1 - s) for s in seeds]


@dataclass(frozen=True, slots=True)
class Turn:
    """One round: the same batch with the cache and without it."""

    with_cache: float  # seconds for the whole batch
    without_cache: float
    found: float  # share of the prompts' tokens that the cache had
    same_tokens: bool

    @property
    def ratio(self) -> float:
        return self.without_cache / self.with_cache


def turns(with_cache: LLM, without_cache: LLM, work: Workload, rounds: int) -> Iterator[Turn]:
    for seed in range(rounds):
        prompts = work.batch(with_cache.model_config.tokens, seed + 1)
        order = [with_cache, without_cache]
        ran = {llm: _timed(llm, prompts, work) for llm in (order if seed % 2 else order[::-1])}
        (on, answers), (off, others) = ran[with_cache], ran[without_cache]
        found = sum(o.usage.cached_tokens for o in answers) / sum(map(len, prompts))
        same = [o.outputs[0].token_ids for o in answers] == [o.outputs[0].token_ids for o in others]
        yield Turn(on, off, found, same)


def _timed(llm: LLM, prompts: list[list[int]], work: Workload) -> tuple[float, list[RequestOutput]]:
    begin = time.perf_counter()
    outputs = llm.generate(prompts, greedy(work.new_tokens))
    return time.perf_counter() - begin, outputs
