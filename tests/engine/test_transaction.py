"""An exception at any line of the engine or of the cache leaves the pool whole and every other
request unharmed: it ends with exactly the answers that it has alone.

Every second step of a busy engine is broken off at a line where none was broken off before, until
there is no such line left, once by an error and once by Ctrl-C. Found by it when it was written:

- an eviction broken off: its block became the youngest, and its parent was evicted before it;
- Ctrl-C between the forks of n answers: the others were never drawn, and between an answer's last
  token and its end: it got one token more than max_tokens;
- rows of a prompt that had run and were not booked: their log-probabilities were left out;
- an end broken off: a request without live branches, that neither ran nor ended;
- the root of a namespace broken off before it had its name, and found again without one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

import pytest

from octavo.engine.engine import Engine
from octavo.engine.nouns import Request
from tests.engine.busy import TEXT, Busy
from tests.engine.interrupt import Line, call_raising
from tests.engine.tiny_engine import add

ERRORS = [RuntimeError, KeyboardInterrupt]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"schedule": "longest-prefix"},
    {"prefix_cache": False},
    {"kv_cache": False, "num_blocks": 12},
]
# What a busy engine does; the sweep has to pass through all of it.
MUST_RUN = {
    *("who_may_begin", "preempt", "_plan_decodes", "_plan_chunk", "begin", "fork", "drop", "end"),
    *("reserve", "commit", "_register", "register_tail", "commit_transfers", "take_over"),
    *("_evict", "hold", "free", "forget", "register", "draw", "_go_on", "row_value"),
    *("_note_cache", "end_late", "forward", "transfer", "advance", "hypotheses"),
}


def nth(n: int) -> Callable[[Line], bool]:
    """Choose the line that runs as the nth."""
    lines = count(1)
    return lambda _: next(lines) == n


class Reports:
    """Every end is in exactly one result, unless the result itself was lost on its way out."""

    def __init__(self, busy: Busy) -> None:
        self._busy = busy
        self._reported: list[Request] = []
        # Whoever cancels a request need not be told; after an exception the engine may.
        self.cancelled: set[Request] = set()
        self._lost = 0

    def step(self) -> None:
        self._reported += self._busy.engine.step().finished

    def note(self, line: Line | None) -> None:
        if line is not None and line[0] is Engine.step.__code__:
            self._lost += 1

    def check(self, ended: int) -> None:
        assert len(set(self._reported)) == len(self._reported)
        assert ended - len(set(self._reported) | self.cancelled) <= self._lost


@pytest.mark.parametrize("kind", ERRORS)
def test_a_step_may_break_off_at_any_line(kind: type[BaseException]) -> None:
    busy, seen, names = Busy(seed=2), set[tuple[int, int]](), set[str]()
    reports = Reports(busy)
    quiet = 0

    def unseen(line: Line) -> bool:
        code, number = line
        key = id(code), number  # a code's own hash is that of all its constants, each time anew
        if key in seen:
            return False
        seen.add(key)
        names.add(code.co_name)
        return True

    while quiet < 40:
        busy.fill()
        line = call_raising(reports.step, kind("injected"), unseen)
        reports.note(line)
        quiet = 0 if line else quiet + 1
        busy.check(may_hurt=bool(line))
        reports.step()
        busy.check(may_hurt=0)
    busy.drain()
    assert busy.num_right > 200
    assert busy.num_preempted > 0
    assert names >= MUST_RUN, MUST_RUN - names


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_call_may_break_off_after_any_number_of_lines(
    kind: type[BaseException], options: dict[str, Any]
) -> None:
    """Steps, new requests and cancels, in every mode."""
    busy = Busy(seed=3, **options)
    reports, ended, broken = Reports(busy), 0, 0

    def check(may_hurt: int) -> None:
        nonlocal ended
        ended += sum(r.finished for r in busy.live)
        busy.check(may_hurt=may_hurt)

    for _ in range(100):
        busy.fill()
        lines = busy.random.choice([5, 50, 500, 5000])
        at = nth(busy.random.randrange(1, lines))
        call: Callable[[], object] = reports.step
        victim = None
        if busy.random.random() < 0.2:
            call = busy.add
        elif busy.random.random() < 0.2:
            victim = busy.random.choice(list(busy.live))
            call = partial(busy.engine.finish, victim, "abort")
        line = call_raising(call, kind("injected"), at)
        reports.note(line)
        broken += line is not None
        if victim is not None:
            busy.engine.finish(victim, "abort")
            reports.cancelled.add(victim)
        check(may_hurt=1)
        reports.step()
        check(may_hurt=0)
    while busy.live:
        reports.step()
        check(may_hurt=0)
    reports.check(ended)
    assert broken > 35
    assert busy.num_right > 8


@pytest.mark.parametrize("kind", ERRORS)
def test_the_end_of_an_only_answer_may_break_off_at_any_line(kind: type[BaseException]) -> None:
    """A request without live branches would never end."""
    busy = Busy(seed=1)
    for n in count(1):
        request = add(busy.engine, TEXT[:40], max_tokens=6)
        busy.engine.step()
        end = partial(busy.engine.finish_branch, request.branches[0], "stop")
        line = call_raising(end, kind("injected"), nth(n))
        for _ in range(20):
            busy.engine.step()
        busy.engine.check_integrity()
        assert request.finished
        if line is None:
            break
    assert n > 40
