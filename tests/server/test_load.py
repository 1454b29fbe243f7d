"""A server under a crowd: no answer is another one than alone, and nothing is left of any."""

from __future__ import annotations

from pathlib import Path

from tests.server.apart import Apart
from tests.server.crowd import Crowd


def test_a_crowd_leaves_nothing_behind(roomy_path: Path) -> None:
    with Apart(str(roomy_path)) as server:
        crowd = Crowd(server)
        crowd.run(24, 15)  # so that all that is kept is there
        before = server.at_rest()
        crowd.run(24, 15)
        after = server.at_rest()
    assert crowd.wrong == []
    kinds = {"reads", "reads_slowly", "leaves", "stalls", "sends_what_is_none", "injected"}
    assert kinds <= crowd.done.keys()
    assert after.memory <= before.memory * 1.05
    assert after.files <= before.files
    assert after.threads <= before.threads
