"""A run of the peers leaves every repetition, what the machine could do around it, and why where
there is none. To JSON and back; runs of one model on one machine are put together.

Knows medians; knows no engine and no figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any

from benchmarks.peer.workloads import Workload, from_dict


@dataclass(frozen=True, slots=True)
class Sample:
    """One repetition."""

    speed: float  # tokens a second
    limit: float  # what the machine allowed just then
    read_gbps: float  # 10^9 bytes a second, the mean of before and after
    peak_gops: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one workload with one peer; `why` where a repetition is missing."""

    work: str
    peer: str
    samples: tuple[Sample, ...] = ()
    why: str = ""

    @property
    def median(self) -> float:
        return median(each.speed for each in self.samples)

    @property
    def least(self) -> float:
        return min(each.speed for each in self.samples)

    @property
    def most(self) -> float:
        return max(each.speed for each in self.samples)

    @property
    def of_limit(self) -> float:
        return median(each.speed / each.limit for each in self.samples)


@dataclass(frozen=True, slots=True)
class Results:
    """`machine` and `model` are facts by name, `peers` versions and ways by peer."""

    machine: Mapping[str, Any]
    model: Mapping[str, Any]
    peers: Mapping[str, Mapping[str, str]]
    missing: Mapping[str, str]  # how to get those that are not installed
    works: Sequence[Workload]
    outcomes: Sequence[Outcome]
    runs: Sequence[Mapping[str, Any]] = field(default_factory=list)  # when, and how

    def of(self, work: str, peer: str) -> Outcome | None:
        found = [each for each in self.outcomes if (each.work, each.peer) == (work, peer)]
        return found[0] if found else None

    def limit(self, work: str) -> float | None:
        """The median of what the machine allowed while this was measured."""
        limits = [s.limit for each in self.outcomes if each.work == work for s in each.samples]
        return median(limits) if limits else None

    def to_dict(self) -> dict[str, Any]:
        outcomes = [{**asdict(each), **_summary(each)} for each in self.outcomes]
        return {**asdict(self), "outcomes": outcomes}


def from_json(data: Mapping[str, Any]) -> Results:
    outcomes = [
        Outcome(o["work"], o["peer"], tuple(Sample(**s) for s in o["samples"]), o["why"])
        for o in data["outcomes"]
    ]
    works = [from_dict(each) for each in data["works"]]
    return Results(**{**data, "works": works, "outcomes": outcomes})


def together(parts: Sequence[Results]) -> Results:
    """One result of runs of the same model on the same machine. ValueError where they are not."""
    first = parts[0]
    for part in parts[1:]:
        for what in ("machine", "model"):
            here, there = getattr(first, what), getattr(part, what)
            different = sorted(key for key in here | there if here.get(key) != there.get(key))
            if different:
                raise ValueError(
                    f"runs of another {what} cannot be put together: {different[0]} is "
                    f"{here.get(different[0])!r} and {there.get(different[0])!r}"
                )
    peers: dict[str, Mapping[str, str]] = {}
    for part in parts:
        for name, facts in part.peers.items():
            known = peers.setdefault(name, facts)
            versions = {known["version"], facts["version"]} - {""}
            if len(versions) > 1:
                raise ValueError(
                    f"runs of two versions of {name} cannot be put together: "
                    f"{' and '.join(sorted(versions))}"
                )
            peers[name] = {**known, "version": "".join(versions)}
    return replace(
        first,
        peers=peers,
        missing={
            name: how for part in parts for name, how in part.missing.items() if name not in peers
        },
        works=_by_group({each.name: each for part in parts for each in part.works}.values()),
        outcomes=_joined(each for part in parts for each in part.outcomes),
        runs=[run for part in parts for run in part.runs],
    )


def _by_group(works: Iterable[Workload]) -> list[Workload]:
    """Put those of one figure together, in the order in which groups and works first came."""
    found: dict[str, list[Workload]] = {}
    for each in works:
        found.setdefault(each.group, []).append(each)
    return [each for group in found.values() for each in group]


def _joined(outcomes: Iterable[Outcome]) -> list[Outcome]:
    found: dict[tuple[str, str], Outcome] = {}
    for each in outcomes:
        key = each.work, each.peer
        before = found.get(key, Outcome(*key))
        samples = before.samples + each.samples
        found[key] = replace(each, samples=samples, why=each.why or before.why)
    return list(found.values())


def _summary(outcome: Outcome) -> dict[str, float]:
    if not outcome.samples:
        return {}
    middle = outcome.median
    return {
        "median": middle,
        "least": outcome.least,
        "most": outcome.most,
        "spread": (outcome.most - outcome.least) / middle,
        "of_limit": outcome.of_limit,
    }
