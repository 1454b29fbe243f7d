"""Prompt tokens found in the prefix cache, against the most that could have been found.

Requests run in series through the real engine, in a pool that never evicts. Found is what each
request's CacheRecord says. The ideal, for each prompt, is its longest prefix in common with
anything computed before, and all but its last token at most; by whole blocks, the same rounded
down.

Where the data have an answer the engine is made to give it, one token a step, and to end its turn:
its tokens are computed like any answer's and the next prompt of the dialogue holds them. Where they
have none a request draws one token, which is never computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.data import Turn, bbh_prompts, mt_bench, sgd_dialogues
from benchmarks.figure import Figure
from benchmarks.ideal_prefix import ComputedBefore, reusable
from benchmarks.modelless import Modelless, Scripted
from benchmarks.prompts import Encoder, Exchange, dialogue, find_encoder
from octavo.config import EngineConfig
from octavo.engine.nouns import Request

DEFAULTS = EngineConfig()
PAPER_FEW_SHOT = "85-98 % (few-shot, SGLang)"  # MMLU 85, HellaSwag 98: Zheng et al., NeurIPS 2024
PAPER_CHAT = "50-57 % of 60-74 % (multi-turn, SGLang)"  # achieved of optimal, same figure


@dataclass(slots=True)
class Hits:
    """Tokens, summed over the prompts that are counted."""

    prompt: int = 0
    found: int = 0
    ideal: int = 0
    ideal_blocks: int = 0
    not_ideal: list[int] = field(default_factory=list)  # requests where found is not the ideal

    @property
    def rate(self) -> float:
        return self.found / self.prompt


class Series:
    """The figures of requests that come one after the other over one cache."""

    def __init__(
        self, longest: int, num_blocks: int, *, block_size: int = DEFAULTS.block_size
    ) -> None:
        self._head = Scripted()
        self._block_size = block_size
        self._engine = Modelless(
            self._head, num_blocks=num_blocks, block_size=block_size, max_num_seqs=1,
            max_rows=longest, context=longest,
        )  # fmt: skip
        self._before = ComputedBefore()
        self._count = 0

    def run(self, exchange: Exchange, hits: Hits) -> None:
        """Serve one request, and book it."""
        prompt, answer = exchange
        self._head.write(answer)
        request = self._engine.offer(prompt, len(answer) + 1)
        self._engine.run()
        assert request.cache is not None
        assert self._engine.engine.counts()["kv_blocks_evicted"] == 0
        shared = self._before.longest_prefix(prompt)
        self._before.add([*prompt, *answer])
        ideal = reusable(len(prompt), shared)
        hits.prompt += len(prompt)
        hits.found += request.cache.matched_tokens
        hits.ideal += ideal
        hits.ideal_blocks += reusable(len(prompt), shared, self._block_size)
        if request.cache.matched_tokens != ideal:
            hits.not_ideal.append(self._count)
        self._count += 1


def in_series(
    dialogues: Sequence[Sequence[Exchange]], *, from_turn: int = 0,
    block_size: int = DEFAULTS.block_size,
) -> Hits:  # fmt: skip
    """Turns before `from_turn` run, and are not counted."""
    every = [exchange for turns in dialogues for exchange in turns]
    longest = _longest(every)
    blocks = sum(_size(each) // block_size + 2 for each in every)
    series, hits, uncounted = Series(longest, blocks, block_size=block_size), Hits(), Hits()
    for turns in dialogues:
        for turn, exchange in enumerate(turns):
            series.run(exchange, hits if turn >= from_turn else uncounted)
    return hits


def at_once(prompts: Sequence[Sequence[int]]) -> list[Request]:
    """Offer all requests before the first step, under the limits that `LLM` has by default."""
    longest = max(map(len, prompts))
    size = DEFAULTS.block_size
    engine = Modelless(
        Scripted(),
        num_blocks=sum(len(prompt) // size + 2 for prompt in prompts),
        block_size=size,
        max_num_seqs=DEFAULTS.max_num_seqs,
        max_rows=DEFAULTS.max_batch_tokens,
        context=longest,
    )
    requests = [engine.offer(prompt, 1) for prompt in prompts]
    computed = sum(moment.record.computed_tokens for moment in engine.steps())
    found = sum(r.cache.matched_tokens for r in requests if r.cache)
    assert computed == sum(map(len, prompts)) - found, "a prompt's tokens are found or computed"
    return requests


def figures(folder: Path) -> list[Figure]:
    encoder = find_encoder()
    few_shot = [encoder.text(prompt) for prompt in bbh_prompts(folder)]
    few_shot_hits = in_series([[Exchange(prompt, [])] for prompt in few_shot])
    bench, dialogues = mt_bench(folder), sgd_dialogues(folder)
    answered = [turns for turns in bench if turns[0].answer]
    unanswered = [turns for turns in bench if not turns[0].answer]
    return [
        figure(f"BBH 3-shot, {len(few_shot)} questions", encoder, few_shot_hits, PAPER_FEW_SHOT),
        at_once_figure(few_shot, few_shot_hits),
        *(
            figure(f"MT-bench turn 2, {len(turns)} {what}", encoder, chats(encoder, turns, 1))
            for what, turns in (("answered", answered), ("with an empty answer", unanswered))
        ),
        figure(
            f"SGD, {sum(map(len, dialogues))} turns", encoder, chats(encoder, dialogues, 0),
            PAPER_CHAT,
        ),
    ]  # fmt: skip


def chats(encoder: Encoder, dialogues: Iterable[Sequence[Turn]], from_turn: int) -> Hits:
    exchanges = [list(dialogue(encoder, turns)) for turns in dialogues]
    return in_series(exchanges, from_turn=from_turn)


def figure(name: str, encoder: Encoder, hits: Hits, theirs: str = "") -> Figure:
    blocks = 100 * hits.ideal_blocks / hits.prompt
    return Figure(
        name=f"hit rate, {name}, {encoder.name}",
        ours=100 * hits.rate,
        unit="%",
        theirs=theirs,
        goal=f"{100 * hits.ideal / hits.prompt:.2f} % ideal ({blocks:.2f} % by whole blocks)",
        met=not hits.not_ideal,
        counts={
            "prompt_tokens": hits.prompt, "found_tokens": hits.found, "ideal_tokens": hits.ideal,
            "ideal_block_tokens": hits.ideal_blocks,
        },
    )  # fmt: skip


def at_once_figure(prompts: Sequence[Sequence[int]], series: Hits) -> Figure:
    """Who begins while others compute what it shares waits for their whole blocks; part of a block
    is found once its writer has ended. So each whole block is computed once."""
    requests = at_once(prompts)
    found = sum(r.cache.matched_tokens for r in requests if r.cache)
    rate = 100 * found / series.prompt
    return Figure(
        name="hit rate, the same offered all at once",
        ours=rate,
        unit="%",
        goal=f"in series {100 * series.rate:.2f} %: {rate - 100 * series.rate:+.2f} points",
        met=found >= series.ideal_blocks,
        counts={"prompt_tokens": series.prompt, "found_tokens": found},
    )


def _size(exchange: Exchange) -> int:
    return len(exchange.prompt) + len(exchange.answer) + 1


def _longest(exchanges: Iterable[Exchange]) -> int:
    return max(map(_size, exchanges))
