"""Peers take turns, and each repetition is held against the machine around it."""

from __future__ import annotations

import pytest

from benchmarks.peer.limits import Limit
from benchmarks.peer.one import NotSupportedError, PeerError
from benchmarks.peer.results import Outcome, Sample
from benchmarks.peer.turns import take_turns
from octavo.bench.rounds import TokenCost
from tests.benchmarks.peer.fakes import CHAT, DECODE, FakePeer, FakeProbe

LIMITS = {work.name: Limit(1, (TokenCost(1e9, 1e9),)) for work in (DECODE, CHAT)}


def test_two_alternate_and_each_has_its_own_readings() -> None:
    log: list[str] = []
    peers = [FakePeer("a", [10, 12, 5], log), FakePeer("b", [20, 22, 7], log)]
    readings = [1e9, 3e9, 2e9, 2e9, 4e9, 4e9, 6e9, 8e9]
    said: list[str] = []
    first, found = take_turns(
        peers, [DECODE], LIMITS, FakeProbe(readings), repeats=2, say=said.append
    )
    assert [len(each.samples) for each in first] == [1, 1]  # kept, should the second never end
    assert log == ["a decode-8 0", "b decode-8 0", "a decode-8 1", "b decode-8 1"]
    assert found == [
        Outcome("decode-8", "a", (Sample(10, 2, 2, 200), Sample(12, 4, 4, 400))),
        Outcome("decode-8", "b", (Sample(20, 2, 2, 200), Sample(22, 7, 7, 700))),
    ]
    line = "decode-8 b 20.0 tok/s, 1000.0% of what 2.0 GB/s and 200 GOP/s allow"
    assert " ".join(said[1].split()) == line


@pytest.mark.parametrize("fails_first", [False, True])
def test_nobody_follows_itself_and_of_three_nobody_is_always_first(fails_first: bool) -> None:
    log: list[str] = []
    speeds = [PeerError("gone") if fails_first else 1.0, 1.0, 1.0]
    peers = [FakePeer(name, [*speeds] if name == "c" else [1.0] * 3, log) for name in "abc"]
    list(
        take_turns(
            peers, [DECODE], LIMITS, FakeProbe([1e9] * 100), repeats=3, say=lambda line: None
        )
    )
    order = "".join(line[0] for line in log)
    assert order == ("abcabab" if fails_first else "abcbcacab")


def test_who_cannot_or_fails_is_out_of_that_workload_alone() -> None:
    log: list[str] = []
    cannot, fails = NotSupportedError("one stream only"), PeerError("out of memory")
    peers = [
        FakePeer("a", [1, 2, 3, 4, 5, 6], log),
        FakePeer("b", [cannot, 7, 8, 9], log),
        FakePeer("c", [1, fails, 1, 2, 3], log),
    ]
    probe = FakeProbe([1e9] * 100)
    *_, chat, _, _, decode = take_turns(
        peers, [CHAT, DECODE], LIMITS, probe, repeats=3, say=lambda line: None
    )
    assert [each.why for each in chat] == [
        "", "not supported by b: one stream only", "failed: out of memory"
    ]  # fmt: skip
    assert [len(each.samples) for each in chat] == [3, 0, 1]
    assert [[s.speed for s in each.samples] for each in decode] == [[4, 5, 6], [7, 8, 9], [1, 2, 3]]
    assert sum("chat-3" in line for line in log) == 3 + 1 + 2


def test_a_limit_is_the_slower_of_bytes_and_operations_of_each_phase() -> None:
    from octavo.bench.machine import Reading

    phases = (TokenCost(10.0, 1.0), TokenCost(1.0, 40.0))
    assert Limit(6, phases).speed(Reading(5.0, 10.0)) == pytest.approx(6 / (2 + 4))
