"""Room for connections, and what is said where there is none."""

from __future__ import annotations

import errno
import resource

import pytest

from octavo.server import descriptors

NO_END = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "connections", "raised"),
    [(256, 4096, 1024, (1088, 4096)), (256, 512, 1024, (512, 512)), (256, NO_END, 9, None),
     (1024, NO_END, 1024, (1088, NO_END)), (NO_END, NO_END, 1024, None)],
)  # fmt: skip
def test_the_limit_is_raised_as_far_as_it_may_be(
    soft: int,
    hard: int,
    connections: int,
    raised: tuple[int, int] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: given.append(limits))
    descriptors.make_room(connections)
    assert given == ([] if raised is None else [raised])


class Loop:
    """A clock, and what falls through."""

    now = 0.0

    def __init__(self) -> None:
        self.others: list[object] = []

    def time(self) -> float:
        return self.now

    def default_exception_handler(self, context: object) -> None:
        self.others.append(context)


def test_a_shortage_is_told_once_a_minute_and_all_else_as_ever() -> None:
    lines: list[str] = []
    loop, shortage = Loop(), descriptors.Shortage(lines.append)
    accept = {"exception": OSError(errno.EMFILE, "Too many open files"), "socket": None}
    for loop.now in (1.0, 1.5, 60.0, 62.0):
        shortage(loop, accept)  # type: ignore[arg-type]
    assert lines == [lines[0]] * 2
    assert "too many open files" in lines[0]
    other = {"exception": OSError(errno.EMFILE, "Too many open files")}  # in a file of ours
    shortage(loop, other)  # type: ignore[arg-type]
    assert loop.others == [other]
