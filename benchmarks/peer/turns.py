"""Peers take turns at a workload, with a look at the machine before and after each: one that
slows down slows all, and its limit.

Knows the interface of a peer and of a probe; knows no engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from benchmarks.peer.limits import Limit
from benchmarks.peer.one import NotSupportedError, Peer, PeerError
from benchmarks.peer.results import Outcome, Sample
from benchmarks.peer.workloads import Workload
from octavo.bench.machine import Probe, Reading

Say = Callable[[str], None]


def take_turns(
    peers: Sequence[Peer],
    works: Sequence[Workload],
    limits: Mapping[str, Limit],
    probe: Probe,
    *,
    repeats: int,
    say: Say,
) -> Iterator[list[Outcome]]:
    """What all peers have of a workload, after each turn of it. Who cannot, or fails, is out of
    that one."""
    for work in works:
        found = {peer.name: Outcome(work.name, peer.name) for peer in peers}
        for turn in range(repeats):
            for peer in _in_turn([each for each in peers if not found[each.name].why], turn):
                so_far = found[peer.name]
                found[peer.name] = _one(peer, work, limits[work.name], turn, so_far, probe)
                say(_line(found[peer.name]))
            yield list(found.values())


def _in_turn(peers: Sequence[Peer], turn: int) -> Sequence[Peer]:
    """Nobody follows itself, which was 20 % faster at decode than to follow another; of three or
    more nobody is always first."""
    first = turn % len(peers) if len(peers) > 2 else 0
    return [*peers[first:], *peers[:first]]


def _one(
    peer: Peer, work: Workload, limit: Limit, turn: int, so_far: Outcome, probe: Probe
) -> Outcome:
    before = probe.read()
    try:
        speed = peer.run(work, seed=turn)
    except NotSupportedError as error:
        return replace(so_far, why=f"not supported by {peer.name}: {error}")
    except PeerError as error:
        return replace(so_far, why=f"failed: {error}")
    after = probe.read()
    reading = Reading(
        (before.bytes_per_second + after.bytes_per_second) / 2,
        (before.ops_per_second + after.ops_per_second) / 2,
    )
    sample = Sample(
        speed, limit.speed(reading), reading.bytes_per_second / 1e9, reading.ops_per_second / 1e9
    )
    return replace(so_far, samples=(*so_far.samples, sample))


def _line(outcome: Outcome) -> str:
    head = f"{outcome.work:<14} {outcome.peer:<13}"
    if outcome.why:
        return f"{head} {outcome.why}"
    last = outcome.samples[-1]
    return (
        f"{head} {last.speed:>9,.1f} tok/s, {last.speed / last.limit:>5.1%} of what "
        f"{last.read_gbps:.1f} GB/s and {last.peak_gops:,.0f} GOP/s allow"
    )
