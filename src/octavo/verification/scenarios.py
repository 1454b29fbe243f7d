"""Scenarios: ways to run the same requests that must not change a bit.

Each runs requests on trials of the stage and gives its claims: what has to have happened, counted,
or the scenario has proved nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from octavo.config import BLOCK_SIZES
from octavo.errors import counted
from octavo.verification.cases import GREEDY, NEW, Cases, history, num_rows
from octavo.verification.trial import Case, Trial, matched

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

    cases: Cases
    threads: int
    has_windows: bool  # that the longest of its sequences slide
    has_sinks: bool  # a block of them: with another size of blocks these are other tokens

    def trial(
        self, *, num_blocks: int = ..., num_sequences: int = ..., max_rows: int = ...,
        threads: int | None = ..., **options: object,
    ) -> Trial: ...  # fmt: skip


def alone(stage: Stage) -> Claims:
    trial = stage.trial(prefix_cache=False)
    cases = stage.cases.mixed()
    for case in cases:
        trial.run([case])
    apart = trial.together == 1 and not (trial.matched or trial.runner.num_chunks)
    decoded = len(cases) * (NEW - 1)
    return [Claim("rows from pages", decoded, apart and trial.computed == num_rows(cases))]


def batched(stage: Stage) -> Claims:
    cases = stage.cases.mixed()
    trial = stage.trial(prefix_cache=False, max_rows=2 * MAX_ROWS)
    trial.run(cases)
    return [Claim("in one step", trial.together, trial.together == len(cases))]


def chunked(stage: Stage) -> Claims:
    trial = stage.trial(prefix_cache=False, max_rows=_CHUNK)
    trial.run(stage.cases.mixed())
    return [
        _some("chunks", trial.runner.num_chunks),
        Claim("in one step", trial.together, trial.together > 1),
    ]


def full_hit(stage: Stage) -> Claims:
    trial = stage.trial()
    cases = stage.cases.mixed()
    trial.run(cases)
    again = trial.run(cases)
    whole = all(matched(r) == r.num_prompt_tokens - 1 for r in again)
    return [
        Claim("tokens found", sum(map(matched, again)), whole),
        _some("rows read, not stored", trial.runner.num_read_only),
        _some("blocks copied", trial.copied),
    ]


def partial_hit(stage: Stage) -> Claims:
    """Prompts that part in the middle of a block, and inside the first one."""
    trial = stage.trial()
    whole = stage.cases.longest()
    size = stage.cases.block_size
    cuts = (size + size // 2 - 3, size // 2 + 1)
    trial.run([whole])
    cases = [Case((*whole.prompt[:cut], *stage.cases.tokens(20 + cut, 9)), GREEDY) for cut in cuts]
    found = [matched(r) for r in trial.run(cases)]
    exact = all(n >= cut for n, cut in zip(found, cuts, strict=True))
    return [Claim("tokens found", sum(found), exact), _some("blocks copied", trial.copied)]


def next_turn(stage: Stage) -> Claims:
    """A conversation goes on: its own answer is part of the prompt."""
    trial = stage.trial()
    first = stage.cases.mixed()
    turns = trial.run(first)
    following = [Case((*history(r), *stage.cases.tokens(40, 5)), GREEDY) for r in turns]
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
    common = stage.cases.tokens(50, stage.cases.context // 2)
    cases = [Case((*common, *stage.cases.tokens(51 + i, 3 + i)), GREEDY) for i in range(5)]
    trial.run(cases)
    once = len(common) // stage.cases.block_size * stage.cases.block_size
    found = trial.matched
    return [Claim("tokens found", found, once > 0 and found >= (len(cases) - 1) * once)]


def forked(stage: Stage) -> Claims:
    """Several answers to a prompt, beside others."""
    trial = stage.trial()
    trial.run([stage.cases.fork(60, 3), stage.cases.fork(61, 2), stage.cases.mixed()[2]])
    return [Claim("forks", trial.forks, trial.forks == 3), _some("blocks copied", trial.copied)]


def beams(stage: Stage) -> Claims:
    trial = stage.trial()
    cases = [stage.cases.beams(70, 3), stage.cases.mixed()[3], stage.cases.beams(71, 2)]
    for case in cases:
        trial.run([case])
    alone = trial.forks
    trial.run(cases)
    return [_some("forks", trial.forks - alone), _some("blocks copied", trial.copied)]


def preempted(stage: Stage) -> Claims:
    """Let all begin where there is no room for all to go on; what survives is found again."""
    return _preempted(stage, prefix_cache=True)


def preempted_and_recomputed(stage: Stage) -> Claims:
    """Let all begin where there is no room for all to go on, and nothing may be found again."""
    return _preempted(stage, prefix_cache=False)


def evicted(stage: Stage) -> Claims:
    """A pool that holds one of them at a time: some of what is found was computed twice."""
    trial = stage.trial(num_blocks=-(-stage.cases.context // stage.cases.block_size))
    for case in stage.cases.mixed() * 2:
        trial.run([case])
    return [_some("blocks evicted", trial.evicted)]


def all_at_once(stage: Stage) -> Claims:
    """Chunks, hits, forks, beams, preemption and eviction in one small pool."""
    blocks = -(-stage.cases.context // stage.cases.block_size) + 2
    trial = stage.trial(num_blocks=blocks, max_rows=_CHUNK)
    cases = [
        *stage.cases.mixed(),
        stage.cases.fork(60, 3),
        stage.cases.beams(70, 3),
        *stage.cases.growing(),
    ]
    trial.run(cases)
    trial.run(cases[::-1])
    return [
        _some("chunks", trial.runner.num_chunks),
        _some("tokens found", trial.matched),
        _some("blocks copied", trial.copied),
        _some("preemptions", trial.preempted),
        _some("blocks evicted", trial.evicted),
    ]


def windows_slide(stage: Stage) -> Claims:
    """A prompt longer than the windows, its next turn, and one that parts from it after its first
    block; each begins with what windows left behind, or computes it again."""
    trial = stage.trial(max_rows=_CHUNK)
    size, context = stage.cases.block_size, stage.cases.context
    (turn,) = trial.run([Case(stage.cases.tokens(90, context - 2 * NEW), GREEDY)])
    cases = [
        Case((*history(turn), *stage.cases.tokens(91, 1)), replace(GREEDY, max_tokens=1)),
        Case((*turn.prompt_token_ids[: size + 1], *stage.cases.tokens(92, context // 2)), GREEDY),
    ]
    found = [matched(request) for request in trial.run(cases)]
    claim = Claim("tokens found", sum(found), found[0] >= len(history(turn)) - 1)
    return [_some("blocks let go", trial.let_go), claim]


def no_cache(stage: Stage) -> Claims:
    """Compute every token from the whole sequence again."""
    cases = [stage.cases.longest(), *stage.cases.mixed()[:2]]
    trial = stage.trial(kv_cache=False)
    trial.run(cases)
    more = trial.computed - num_rows(cases)
    return [Claim("rows computed again", more, more > 0 and trial.kv_read == 0)]


def block_size(size: int) -> Callable[[Stage], Claims]:
    def other_block_size(stage: Stage) -> Claims:
        trial = stage.trial(block_size=size, num_blocks=2 * MAX_ROWS // 16, max_rows=101)
        trial.run(stage.cases.mixed())
        trial.run(stage.cases.mixed())
        found = trial.runner.layouts[0].block_size
        return [Claim("tokens a block", found, found == size), *_chunks_and_hits(trial)]

    return other_block_size


def threads(count: int) -> Callable[[Stage], Claims]:
    def other_thread_count(stage: Stage) -> Claims:
        trial = stage.trial(threads=count, max_rows=101)
        trial.run(stage.cases.mixed())
        trial.run(stage.cases.mixed())
        found = trial.num_threads
        return [Claim("threads", found, found == count), *_chunks_and_hits(trial)]

    return other_thread_count


def scenarios(stage: Stage) -> Iterator[tuple[str, Callable[[Stage], Claims]]]:
    """Yield scenarios by name, in the order in which they run: alone first, since it fixes every
    answer."""
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
    if stage.has_windows:
        yield "windows slide", windows_slide
    for size in BLOCK_SIZES:
        if size != stage.cases.block_size and not stage.has_sinks:
            yield f"blocks of {size}", block_size(size)
    for count in sorted({1, 2, 3} - {stage.threads}):
        yield counted(count, "thread"), threads(count)


def _preempted(stage: Stage, *, prefix_cache: bool) -> Claims:
    cases = stage.cases.growing()
    room = len(cases) * stage.cases.growing_blocks + 2  # all prompts, and two of four answers
    trial = stage.trial(num_blocks=room, num_sequences=len(cases), prefix_cache=prefix_cache)
    for case in cases:
        trial.run([case])
    before = trial.computed
    trial.run(cases)
    claims = [
        Claim("in one step", trial.together, trial.together == len(cases)),
        _some("preemptions", trial.preempted),
    ]
    if not prefix_cache:
        again = trial.computed - before - num_rows(cases)
        claims.append(_some("rows computed again", again))
    return claims


def _chunks_and_hits(trial: Trial) -> Claims:
    return [_some("chunks", trial.runner.num_chunks), _some("tokens found", trial.matched)]


def _some(event: str, count: int) -> Claim:
    return Claim(event, count, count > 0)
