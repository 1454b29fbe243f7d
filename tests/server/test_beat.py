"""When streams write their pieces: not before their gap, and many at one time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.server.beat import Beat, next_time
from tests.serving.stories import in_a_loop


@given(st.floats(0.001, 0.05), st.floats(0, 1e5), st.floats(0, 1))
def test_streams_come_to_the_same_times(gap: float, now: float, later: float) -> None:
    due = next_time(gap, now)
    wait = due - now
    assert gap - 1e-6 < wait < gap * 1.25 + 1e-6
    # One that wrote a little later, but before the next time, is woken with it.
    after = now + later * (wait - gap) * 0.999
    assert next_time(gap, after) == due or wait - gap < gap / 4 * 1e-3


@in_a_loop
async def test_one_timer_wakes_all_but_who_was_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop, beat, timers = asyncio.get_running_loop(), Beat(), []
    call_at = loop.call_at

    def at_100(when: float, *given: object) -> object:
        timers.append(when)
        return call_at(0.0, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "time", lambda: 100.0)
    monkeypatch.setattr(loop, "call_at", at_100)
    waiting = [asyncio.create_task(beat.wait(0.5)) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[2].cancel()
    await asyncio.wait(waiting)
    assert timers == [100.5]
    assert [each.cancelled() for each in waiting] == [False, False, True, False, False]
    await beat.wait(0.5)  # the time is given anew
    assert timers == [100.5, 100.5]


@in_a_loop
async def test_without_a_gap_there_is_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "call_at", None)
    await Beat().wait(0)
