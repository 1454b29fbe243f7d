"""Scenarios: ways to run the same requests that must not change a bit.

Each runs requests on trials of the stage and gives its claims: what has to have happened, counted,
or the scenario has proved nothing. Lengths follow from the block size and the context, so that
every edge of a block, a partly filled one and (in contexts above 341) a second chunk of attention
are met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from octavo.config import BLOCK_SIZES
from octavo.request import Request
from octavo.sampling_params import SamplingParams
from octavo.verification.trial import Ask, Trial, matched

NEW = 12  # tokens of each answer
MAX_ROWS = 512  # of a step, where prompts are not meant to be cut
_CHUNK = 37  # rows of a step, where they are: no multiple of anything


@dataclass(frozen=True, slots=True)
class Claim:
    """`count` of `event` happened; `holds` if that is what the scenario is about."""

    event: str
    count: int
    holds: bool


Claims = list[Claim]


class Stage(Protocol):
    """What scenarios run on. Options of `trial` are fields of EngineConfig."""

    block_size: int
    context: int
    threads: int

    def trial(
        self, *, num_blocks: int = ..., max_rows: int = ..., threads: int | None = ...,
        **options: object,
    ) -> Trial: ...  # fmt: skip

    def tokens(self, seed: int, count: int) -> tuple[int, ...]:
        """Random ones, the same every time."""


def alone(stage: Stage) -> Claims:
    trial = stage.trial(prefix_cache=False)
    asks = _asks(stage)
    for ask in asks:
        trial.run([ask])
    apart = trial.together == 1 and not (trial.matched or trial.runner.num_chunks)
    decoded = len(asks) * (NEW - 1)
    return [Claim("rows from pages", decoded, apart and trial.computed == _rows(asks))]


def batched(stage: Stage) -> Claims:
    asks = _asks(stage)
    trial = stage.trial(prefix_cache=False, max_rows=2 * MAX_ROWS)
    trial.run(asks)
    return [Claim("in one step", trial.together, trial.together == len(asks))]


def chunked(stage: Stage) -> Claims:
    trial = stage.trial(prefix_cache=False, max_rows=_CHUNK)
    trial.run(_asks(stage))
    return [
        _some("chunks", trial.runner.num_chunks),
        Claim("in one step", trial.together, trial.together > 1),
    ]


def full_hit(stage: Stage) -> Claims:
    trial = stage.trial()
    asks = _asks(stage)
    trial.run(asks)
    again = trial.run(asks)
    whole = all(matched(r) == r.num_prompt_tokens - 1 for r in again)
    return [
        Claim("tokens found", sum(map(matched, again)), whole),
        _some("rows read, not stored", trial.runner.num_read_only),
        _some("blocks copied", trial.copied),
    ]


def partial_hit(stage: Stage) -> Claims:
    """Prompts that part in the middle of a block, and inside the first one."""
    trial = stage.trial()
    whole = _long(stage)
    cuts = (stage.block_size + stage.block_size // 2 - 3, stage.block_size // 2 + 1)
    trial.run([whole])
    asks = [Ask((*whole.prompt[:cut], *stage.tokens(20 + cut, 9)), _greedy()) for cut in cuts]
    found = [matched(r) for r in trial.run(asks)]
    exact = all(n >= cut for n, cut in zip(found, cuts, strict=True))
    return [Claim("tokens found", sum(found), exact), _some("blocks copied", trial.copied)]


def next_turn(stage: Stage) -> Claims:
    """A conversation goes on: its own answer is part of the prompt."""
    trial = stage.trial()
    first = _asks(stage)
    turns = trial.run(first)
    following = [Ask((*_history(r), *stage.tokens(40, 5)), _greedy()) for r in turns]
    found = [matched(r) for r in trial.run(following)]
    wanted = [len(_history(r)) - 1 for r in turns]  # K and V of the last token were never needed
    reused = all(n >= w for n, w in zip(found, wanted, strict=True))
    return [
        Claim("tokens found", sum(found), reused),
        Claim("of them generated", len(turns) * (NEW - 1), reused),
    ]


def offered_together(stage: Stage) -> Claims:
    """A common beginning that one request computes while the others wait for it."""
    trial = stage.trial()
    common = stage.tokens(50, stage.context // 2)
    asks = [Ask((*common, *stage.tokens(51 + i, 3 + i)), _greedy()) for i in range(5)]
    trial.run(asks)
    once = len(common) // stage.block_size * stage.block_size
    found = trial.matched
    return [Claim("tokens found", found, once > 0 and found >= (len(asks) - 1) * once)]


def forked(stage: Stage) -> Claims:
    """Several answers to a prompt, beside others."""
    trial = stage.trial()
    requests = trial.run([_fork(stage, 60, 3), _fork(stage, 61, 2), _asks(stage)[2]])
    forks = sum(len(r.sequences) - 1 for r in requests)
    return [Claim("forks", forks, forks == 3), _some("blocks copied", trial.copied)]


def beams(stage: Stage) -> Claims:
    trial = stage.trial()
    asks = [_beams(stage, 70, 3), _asks(stage)[3], _beams(stage, 71, 2)]
    for ask in asks:
        trial.run([ask])
    requests = trial.run(asks)
    parents = [step for r in requests for step in r.beam_parents]
    forks = sum(len(step) - len(set(step)) for step in parents)
    return [_some("forks", forks), _some("blocks copied", trial.copied)]


def preempted(stage: Stage) -> Claims:
    """All begin, then there is no room for all to go on; what survives is found again."""
    return _preempted(stage, prefix_cache=True)


def preempted_and_recomputed(stage: Stage) -> Claims:
    """The same, and nothing may be found again."""
    return _preempted(stage, prefix_cache=False)


def evicted(stage: Stage) -> Claims:
    """A pool that holds one of them at a time: some of what is found was computed twice."""
    trial = stage.trial(num_blocks=-(-stage.context // stage.block_size))
    for ask in _asks(stage) * 2:
        trial.run([ask])
    return [_some("blocks evicted", trial.evicted)]


def all_at_once(stage: Stage) -> Claims:
    """Chunks, hits, forks, beams, preemption and eviction in one small pool."""
    blocks = -(-stage.context // stage.block_size) + 2
    trial = stage.trial(num_blocks=blocks, max_rows=_CHUNK)
    asks = [*_asks(stage), _fork(stage, 60, 3), _beams(stage, 70, 3), *_growing(stage)]
    trial.run(asks)
    trial.run(asks[::-1])
    return [
        _some("chunks", trial.runner.num_chunks),
        _some("tokens found", trial.matched),
        _some("blocks copied", trial.copied),
        _some("preemptions", trial.preempted),
        _some("blocks evicted", trial.evicted),
    ]


def no_cache(stage: Stage) -> Claims:
    """Every token from the whole sequence, computed again."""
    asks = [_long(stage), *_asks(stage)[:2]]
    trial = stage.trial(kv_cache=False)
    trial.run(asks)
    more = trial.computed - _rows(asks)
    return [Claim("rows computed again", more, more > 0 and trial.cached == 0)]


def block_size(size: int) -> Callable[[Stage], Claims]:
    def other_block_size(stage: Stage) -> Claims:
        trial = stage.trial(block_size=size, num_blocks=2 * MAX_ROWS // 16, max_rows=101)
        trial.run(_asks(stage))
        trial.run(_asks(stage))
        found = trial.runner.layouts[0].block_size
        return [Claim("tokens a block", found, found == size), *_chunks_and_hits(trial)]

    return other_block_size


def threads(count: int) -> Callable[[Stage], Claims]:
    def other_thread_count(stage: Stage) -> Claims:
        trial = stage.trial(threads=count, max_rows=101)
        trial.run(_asks(stage))
        trial.run(_asks(stage))
        found = trial.num_threads
        return [Claim("threads", found, found == count), *_chunks_and_hits(trial)]

    return other_thread_count


def scenarios(stage: Stage) -> Iterator[tuple[str, Callable[[Stage], Claims]]]:
    """By name, in the order in which they run: alone first, since it fixes every answer."""
    yield "alone", alone
    yield "batched", batched
    yield "chunked", chunked
    yield "no cache", no_cache
    yield "shared: full hit", full_hit
    yield "shared: partial hit", partial_hit
    yield "shared: next turn", next_turn
    yield "shared: together", offered_together
    yield "forked: n answers", forked
    yield "forked: beams", beams
    yield "preempted, resumed", preempted
    yield "preempted, no reuse", preempted_and_recomputed
    yield "evicted", evicted
    yield "all at once", all_at_once
    for size in BLOCK_SIZES:
        if size != stage.block_size:
            yield f"blocks of {size}", block_size(size)
    for count in sorted({1, 2, 3} - {stage.threads}):
        yield f"{count} threads" if count > 1 else "1 thread", threads(count)


def _asks(stage: Stage) -> list[Ask]:
    """The requests that most scenarios run: greedy, drawn, and drawn with penalties in turn."""
    size, context = stage.block_size, stage.context
    lengths = (1, 2, size - 1, size, size + 1, context // 3, context * 3 // 4)
    kinds = (
        _greedy(),
        SamplingParams(max_tokens=NEW, temperature=0.8, seed=5, ignore_eos=True),
        SamplingParams(
            max_tokens=NEW, temperature=1.0, seed=6, ignore_eos=True,
            repetition_penalty=1.1, frequency_penalty=0.5, top_p=0.9,
        ),
    )  # fmt: skip
    return [Ask(stage.tokens(i, n), kinds[i % len(kinds)]) for i, n in enumerate(lengths)]


def _long(stage: Stage) -> Ask:
    return _asks(stage)[-1]


def _growing(stage: Stage) -> list[Ask]:
    """Requests whose answers run into another block after a few tokens, all at once."""
    blocks = _growing_blocks(stage)
    length = blocks * stage.block_size - 3
    return [Ask(stage.tokens(80 + i, length), _greedy()) for i in range(4)]


def _growing_blocks(stage: Stage) -> int:
    return max(1, stage.context // (4 * stage.block_size))


def _preempted(stage: Stage, *, prefix_cache: bool) -> Claims:
    asks = _growing(stage)
    room = len(asks) * _growing_blocks(stage) + 2  # for the prompts, and two of the four answers
    trial = stage.trial(num_blocks=room, prefix_cache=prefix_cache)
    for ask in asks:
        trial.run([ask])
    before = trial.computed
    trial.run(asks)
    claims = [
        Claim("in one step", trial.together, trial.together == len(asks)),
        _some("preemptions", trial.preempted),
    ]
    if not prefix_cache:
        again = trial.computed - before - _rows(asks)
        claims.append(_some("rows computed again", again))
    return claims


def _chunks_and_hits(trial: Trial) -> Claims:
    return [_some("chunks", trial.runner.num_chunks), _some("tokens found", trial.matched)]


def _fork(stage: Stage, seed: int, n: int) -> Ask:
    params = SamplingParams(max_tokens=NEW, temperature=0.9, seed=seed, n=n, ignore_eos=True)
    return Ask(_into_a_block(stage, seed), params)


def _beams(stage: Stage, seed: int, width: int) -> Ask:
    params = SamplingParams(max_tokens=NEW, beam_width=width, n=width, ignore_eos=True)
    return Ask(_into_a_block(stage, seed), params)


def _into_a_block(stage: Stage, seed: int) -> tuple[int, ...]:
    return stage.tokens(seed, stage.block_size + stage.block_size // 2)


def _greedy() -> SamplingParams:
    return SamplingParams(max_tokens=NEW, temperature=0.0, ignore_eos=True)


def _history(request: Request) -> tuple[int, ...]:
    return (*request.prompt_token_ids, *request.sequences[0].completion_token_ids)


def _rows(asks: list[Ask]) -> int:
    """Rows that asks take when each is computed once: the last token drawn never is."""
    return sum(len(ask.prompt) + NEW - 1 for ask in asks)


def _some(event: str, count: int) -> Claim:
    return Claim(event, count, count > 0)


def random_tokens(vocab_size: int, seed: int, count: int) -> tuple[int, ...]:
    rng = np.random.default_rng(seed)
    return tuple(rng.integers(0, vocab_size, count).tolist())
