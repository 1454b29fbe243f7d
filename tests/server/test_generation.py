"""When a stream writes its next piece."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from octavo.server.generation import pause


@given(st.floats(0.001, 0.05), st.floats(0, 1e6), st.floats(0, 1))
def test_streams_come_to_the_same_times(gap: float, now: float, later: float) -> None:
    wait = pause(gap, now)
    assert gap - 1e-6 < wait < gap * 1.25 + 1e-6
    # One that wrote a little later, but before the next time, is woken with it.
    grid = gap / 4
    after = now + later * (wait - gap) * 0.999
    assert abs(after + pause(gap, after) - (now + wait)) < 1e-6 or wait - gap < grid * 1e-3


def test_one_stream_waits_for_nothing() -> None:
    assert pause(0, 5.0) == 0
