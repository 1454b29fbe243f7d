"""Trial: requests on an engine of its own, every row they are drawn from handed to a comparison.

Knows how to build an engine over weights that are there already, and what it counted. Knows no
scenarios.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from octavo.config import EngineConfig
from octavo.engine.assemble import make_engine
from octavo.engine.nouns import Branch, Request
from octavo.engine.runner import blocks_bytes
from octavo.interrupts import is_interrupt
from octavo.kernels import native
from octavo.kv_cache.block_names import Namespace
from octavo.program.program import Program
from octavo.records import BlockEvent, BlockEventKind
from octavo.request import RequestOptions
from octavo.sampling_params import SamplingParams
from octavo.verification.recorder import RecordingRunner, Tamper
from octavo.verification.reference import Comparison, Prefix
from octavo.weights.model_weights import ModelWeights

Answers = tuple[tuple[int, ...], ...]
_MOST_STEPS = 20_000  # of one run; an engine that goes round in circles is a finding too


@dataclass(frozen=True, slots=True)
class Subject:
    """The model that is verified. `context`: tokens of the longest branch."""

    program: Program
    weights: ModelWeights
    context: int


@dataclass(frozen=True, slots=True)
class Case:
    """A prompt, and how its answers are drawn: what a scenario checks."""

    prompt: Prefix
    params: SamplingParams


@dataclass(frozen=True, slots=True)
class Findings:
    """What the trials of a scenario find together."""

    comparison: Comparison
    answers: dict[Case, Answers]  # of every case the first time that it ran, in any scenario
    requests: list[Request] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # beside logits that differ


class Trial:
    def __init__(
        self,
        subject: Subject,
        config: EngineConfig,
        findings: Findings,
        *,
        tamper: Tamper,
        pool: native.ThreadPool,
        num_blocks: int,
        num_sequences: int,
        max_rows: int,
    ) -> None:
        self.requests: list[Request] = []
        self.num_threads = pool.size
        self.let_go = 0  # blocks that windows left behind
        self.runner = RecordingRunner(
            subject.program, subject.weights, config,
            tamper=tamper, pool=pool, context=subject.context, max_rows=max_rows,
            kv_budget=blocks_bytes(subject.program, config, num_blocks, num_sequences),
        )  # fmt: skip
        self._engine = make_engine(
            self.runner, subject.program, config,
            Namespace("verify", "", *config.page_dtypes),
            context=subject.context, weight_bytes=subject.weights.nbytes(),
            on_event=self._note,
        )  # fmt: skip
        self._findings = findings
        self._grown: set[Branch] = set()

    def run(self, cases: Sequence[Case]) -> list[Request]:
        """Offer them together; go on until all have ended."""
        requests = [self._engine.add(c.prompt, c.params, RequestOptions()) for c in cases]
        self.requests += requests
        self._findings.requests.extend(requests)
        for _ in range(_MOST_STEPS):
            if not self._engine.has_unfinished:
                break
            self._step()
        for case, request in zip(cases, requests, strict=True):
            self._check_answer(case, request)
        return requests

    @property
    def together(self) -> int:
        """Requests in the fullest step."""
        return max((r.num_requests for r in self._engine.records), default=0)

    @property
    def computed(self) -> int:
        """The rows that all steps computed."""
        return sum(r.computed_tokens for r in self._engine.records)

    @property
    def kv_read(self) -> int:
        """Tokens that rows saw and that were not computed in their step."""
        return sum(r.kv_read_tokens for r in self._engine.records)

    @property
    def matched(self) -> int:
        """Prompt tokens that were found instead of computed."""
        return sum(matched(r) for r in self.requests)

    @property
    def copied(self) -> int:
        return sum(r.kv_blocks_copied for r in self._engine.records)

    @property
    def evicted(self) -> int:
        return self._engine.counts()["kv_blocks_evicted"]

    @property
    def preempted(self) -> int:
        """Times that a request gave up its blocks, and ran on to its end later."""
        return sum(r.num_preemptions for r in self.requests if r.finished and r.error is None)

    @property
    def forks(self) -> int:
        """Branches that went on from another one's tokens."""
        return len(self._grown) - len({branch.request for branch in self._grown})

    def _note(self, event: BlockEvent) -> None:
        self.let_go += event.kind is BlockEventKind.LET_GO

    def _step(self) -> None:
        try:
            result = self._engine.step()
        except Exception as error:  # its requests live on
            if is_interrupt(error):
                raise
            self._findings.problems.append(f"a step failed, and no request caused it: {error}")
            return
        for request in result.finished:
            if request.error is not None and is_interrupt(request.error):
                raise request.error
        self._grown.update(result.grown)
        for recorded in self.runner.take_rows():
            number = self._findings.requests.index(recorded.branch.request)
            self._findings.comparison.add(number, recorded)

    def _check_answer(self, case: Case, request: Request) -> None:
        problems = self._findings.problems
        name = f"request {self._findings.requests.index(request)}"
        if not request.finished:
            problems.append(f"{name} did not end in {_MOST_STEPS:,} steps")
        elif request.error is not None:
            problems.append(f"{name} failed: {request.error}")
        else:
            got = tuple(tuple(s.completion_token_ids) for s in request.branches)
            if self._findings.answers.setdefault(case, got) != got:
                problems.append(f"{name} was answered with other tokens than the first time")


def matched(request: Request) -> int:
    """Tokens of its prompt that were found instead of computed."""
    return request.cache.matched_tokens if request.cache else 0
