"""A server under a crowd: no answer is another one than alone, and nothing is left of any."""

from __future__ import annotations

from pathlib import Path

from tests.server.apart import Apart, Held
from tests.server.crowd import Crowd


def test_a_crowd_leaves_nothing_behind(roomy_path: Path) -> None:
    with Apart(str(roomy_path)) as server:
        crowd = Crowd(server)
        crowd.run(24, 10)  # so that all that is kept is there
        held = [server.at_rest()]
        for _ in range(4):  # one is enough, but where threads or heaps came in late
            crowd.run(24, 5)
            held.append(server.at_rest())
            if is_no_more(held[-1], held[-2]):
                break
    assert crowd.wrong == []
    kinds = {"reads", "reads_slowly", "leaves", "stalls", "sends_what_is_none", "injected"}
    assert kinds <= crowd.done.keys()
    assert is_no_more(held[-1], held[-2]), [str(each) for each in held]  # what leaks grows on


def is_no_more(after: Held, before: Held) -> bool:
    is_less = after.files <= before.files and after.threads <= before.threads
    return is_less and after.memory <= before.memory * 1.02  # from round to round it is 1.003
