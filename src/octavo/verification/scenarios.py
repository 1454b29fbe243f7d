"""Scenarios: ways to run the same requests that must not change a bit.

Each runs requests on trials of the stage and gives its claims: what has to have happened, counted,
or the scenario has proved nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from octavo.config import BLOCK_SIZES
from octavo.errors import counted
from octavo.verification.asks import GREEDY, NEW, Asks, history, num_rows
from octavo.verification.trial import Ask, Trial, matched

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

    asks: Asks
    threads: int

    def trial(
        self, *, num_blocks: int = ..., max_rows: int = ..., threads: int | None = ...,
        **options: object,
    ) -> Trial: ...  # fmt: skip


def alone(stage: Stage) -> Claims:
    trial = stage.trial(prefix_cache=False)
    asks = stage.asks.mixed()
    for ask in asks:
        trial.run([ask])
    apart = trial.together == 1 and not (trial.matched or trial.runner.num_chunks)
    decoded = len(asks) * (NEW - 1)
    return [Claim("rows from pages", decoded, apart and trial.computed == num_rows(asks))]


def batched(stage: Stage) -> Claims:
    asks = stage.asks.mixed()
    trial = stage.trial(prefix_cache=False, max_rows=2 * MAX_ROWS)
    trial.run(asks)
    return [Claim("in one step", trial.together, trial.together == len(asks))]


def chunked(stage: Stage) -> Claims:
    trial = stage.trial(prefix_cache=False, max_rows=_CHUNK)
    trial.run(stage.asks.mixed())
    return [
        _some("chunks", trial.runner.num_chunks),
        Claim("in one step", trial.together, trial.together > 1),
    ]


def full_hit(stage: Stage) -> Claims:
    trial = stage.trial()
    asks = stage.asks.mixed()
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
    whole = stage.asks.longest()
    cuts = (stage.asks.block_size + stage.asks.block_size // 2 - 3, stage.asks.block_size // 2 + 1)
    trial.run([whole])
    asks = [Ask((*whole.prompt[:cut], *stage.asks.tokens(20 + cut, 9)), GREEDY) for cut in cuts]
    found = [matched(r) for r in trial.run(asks)]
    exact = all(n >= cut for n, cut in zip(found, cuts, strict=True))
    return [Claim("tokens found", sum(found), exact), _some("blocks copied", trial.copied)]


def next_turn(stage: Stage) -> Claims:
    """A conversation goes on: its own answer is part of the prompt."""
    trial = stage.trial()
    first = stage.asks.mixed()
    turns = trial.run(first)
    following = [Ask((*history(r), *stage.asks.tokens(40, 5)), GREEDY) for r in turns]
    found = [matched(r) for r in trial.run(following)]
    wanted = [len(history(r)) - 1 for r in turns]  # K and V of the last token were never needed
    reused = all(n >= w for n, w in zip(found, wanted, strict=True))
    return [
        Claim("tokens found", sum(found), reused),
        Claim("of them generated", len(turns) * (NEW - 1), reused),
    ]


def offered_together(stage: Stage) -> Claims:
    """A common beginning that one request computes while the others wait for it."""
    trial = stage.trial()
    common = stage.asks.tokens(50, stage.asks.context // 2)
    asks = [Ask((*common, *stage.asks.tokens(51 + i, 3 + i)), GREEDY) for i in range(5)]
    trial.run(asks)
    once = len(common) // stage.asks.block_size * stage.asks.block_size
    found = trial.matched
    return [Claim("tokens found", found, once > 0 and found >= (len(asks) - 1) * once)]


def forked(stage: Stage) -> Claims:
    """Several answers to a prompt, beside others."""
    trial = stage.trial()
    trial.run([stage.asks.fork(60, 3), stage.asks.fork(61, 2), stage.asks.mixed()[2]])
    return [Claim("forks", trial.forks, trial.forks == 3), _some("blocks copied", trial.copied)]


def beams(stage: Stage) -> Claims:
    trial = stage.trial()
    asks = [stage.asks.beams(70, 3), stage.asks.mixed()[3], stage.asks.beams(71, 2)]
    for ask in asks:
        trial.run([ask])
    alone = trial.forks
    trial.run(asks)
    return [_some("forks", trial.forks - alone), _some("blocks copied", trial.copied)]


def preempted(stage: Stage) -> Claims:
    """All begin, then there is no room for all to go on; what survives is found again."""
    return _preempted(stage, prefix_cache=True)


def preempted_and_recomputed(stage: Stage) -> Claims:
    """The same, and nothing may be found again."""
    return _preempted(stage, prefix_cache=False)


def evicted(stage: Stage) -> Claims:
    """A pool that holds one of them at a time: some of what is found was computed twice."""
    trial = stage.trial(num_blocks=-(-stage.asks.context // stage.asks.block_size))
    for ask in stage.asks.mixed() * 2:
        trial.run([ask])
    return [_some("blocks evicted", trial.evicted)]


def all_at_once(stage: Stage) -> Claims:
    """Chunks, hits, forks, beams, preemption and eviction in one small pool."""
    blocks = -(-stage.asks.context // stage.asks.block_size) + 2
    trial = stage.trial(num_blocks=blocks, max_rows=_CHUNK)
    asks = [
        *stage.asks.mixed(),
        stage.asks.fork(60, 3),
        stage.asks.beams(70, 3),
        *stage.asks.growing(),
    ]
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
    asks = [stage.asks.longest(), *stage.asks.mixed()[:2]]
    trial = stage.trial(kv_cache=False)
    trial.run(asks)
    more = trial.computed - num_rows(asks)
    return [Claim("rows computed again", more, more > 0 and trial.kv_read == 0)]


def block_size(size: int) -> Callable[[Stage], Claims]:
    def other_block_size(stage: Stage) -> Claims:
        trial = stage.trial(block_size=size, num_blocks=2 * MAX_ROWS // 16, max_rows=101)
        trial.run(stage.asks.mixed())
        trial.run(stage.asks.mixed())
        found = trial.runner.layouts[0].block_size
        return [Claim("tokens a block", found, found == size), *_chunks_and_hits(trial)]

    return other_block_size


def threads(count: int) -> Callable[[Stage], Claims]:
    def other_thread_count(stage: Stage) -> Claims:
        trial = stage.trial(threads=count, max_rows=101)
        trial.run(stage.asks.mixed())
        trial.run(stage.asks.mixed())
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
        if size != stage.asks.block_size:
            yield f"blocks of {size}", block_size(size)
    for count in sorted({1, 2, 3} - {stage.threads}):
        yield counted(count, "thread"), threads(count)


def _preempted(stage: Stage, *, prefix_cache: bool) -> Claims:
    asks = stage.asks.growing()
    room = len(asks) * stage.asks.growing_blocks + 2  # for the prompts, and two of the four answers
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
        again = trial.computed - before - num_rows(asks)
        claims.append(_some("rows computed again", again))
    return claims


def _chunks_and_hits(trial: Trial) -> Claims:
    return [_some("chunks", trial.runner.num_chunks), _some("tokens found", trial.matched)]


def _some(event: str, count: int) -> Claim:
    return Claim(event, count, count > 0)
