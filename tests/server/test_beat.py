"""When streams write their pieces: not before their gap, and many at one time."""

from __future__ import annotations

import asyncio
from functools import partial

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
async def test_one_timer_calls_all_of_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, beat, timers = asyncio.get_running_loop(), Beat(), []
    call_at = loop.call_at

    def at_once(when: float, *given: object) -> object:
        timers.append(when)
        return call_at(0.0, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "time", lambda: 100.0)
    monkeypatch.setattr(loop, "call_at", at_once)
    due = beat.after(0.5)
    assert due == 100.5
    assert not beat.is_time(due)
    called: list[int] = []
    for name in range(5):
        beat.at(due, partial(called.append, name))
    assert called == []
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (timers, called) == ([100.5], [0, 1, 2, 3, 4])
    beat.at(due, lambda: None)  # the time is given anew
    assert timers == [100.5, 100.5]


@in_a_loop
async def test_without_a_gap_it_is_time() -> None:
    assert Beat().is_time(Beat().after(0))


def test_what_a_closed_loop_did_not_call_keeps_nobody_in_another_from_being_called() -> None:
    beat, called = Beat(), list[int]()

    def ask(loop: asyncio.AbstractEventLoop, name: int) -> None:
        beat.at(beat.after(0), partial(called.append, name))
        loop.call_soon(loop.stop)

    for name in range(2):
        loop = asyncio.new_event_loop()
        loop.call_soon(ask, loop, name)
        if name == 0:
            loop.call_soon(loop.stop)  # in the turn in which it is asked for
        loop.run_forever()
        loop.close()
    assert called == [1]
