"""Report: what verification found, by scenario. Plain data, for a table and for JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from octavo.verification.reference import Difference


@dataclass(frozen=True, slots=True)
class ScenarioResult:
    """`events`: what happened, counted. `problem`: the first thing that is wrong, in words."""

    name: str
    requests: int
    rows: int  # of logits, compared
    events: dict[str, int]
    seconds: float
    difference: Difference | None
    problem: str | None

    @property
    def ok(self) -> bool:
        return self.problem is None


@dataclass(slots=True)
class Report:
    vocab_size: int
    threads: int
    isa: str
    scenarios: list[ScenarioResult] = field(default_factory=list)
    reference_rows: int = 0  # different token prefixes
    seconds: float = 0.0

    @property
    def exact(self) -> bool:
        return bool(self.scenarios) and all(s.ok for s in self.scenarios)

    @property
    def rows(self) -> int:
        return sum(s.rows for s in self.scenarios)

    @property
    def logits(self) -> int:
        """The number of values that were compared."""
        return self.rows * self.vocab_size

    def to_dict(self) -> dict[str, object]:
        return {
            "exact": self.exact,
            "logits_compared": self.logits,
            "rows_compared": self.rows,
            "reference_rows": self.reference_rows,
            "vocab_size": self.vocab_size,
            "threads": self.threads,
            "isa": self.isa,
            "seconds": self.seconds,
            "scenarios": [{**asdict(s), "ok": s.ok} for s in self.scenarios],
        }
