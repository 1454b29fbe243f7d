"""An LLM that plays back an answer and records, for what a real engine will not do on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, SimpleNamespace
from typing import ClassVar

from octavo.records import CacheReason, CacheRecord, CacheSource, StepRecord
from octavo.request import Completion, Metrics, RequestOptions, RequestOutput, StreamChunk, Usage
from octavo.sampling_params import SamplingParams


def record(step: int, computed: int, read: int) -> StepRecord:
    return StepRecord(
        step, num_requests=1, computed_tokens=computed, kv_read_tokens=read, output_rows=1,
        seconds=0.1, forward_seconds=0.1, num_waiting=0, num_preempted=0, kv_blocks_used=1,
        kv_blocks_kept=0, kv_blocks_total=8, kv_slots_unfilled=0, kv_blocks_copied=0,
    )  # fmt: skip


STATS: Mapping[str, object] = MappingProxyType({
    "steps": 1234, "computed_tokens": 5678, "kv_read_tokens": 91011, "preempted": 1,
    "step_seconds": 12.3456, "step_seconds_p95": 0.0123, "forward_seconds": 0.987, "running": 0,
    "waiting": 0, "kv_blocks_total": 8, "kv_blocks_used": 0, "kv_blocks_kept": 3,
    "kv_blocks_pinned": 0,
    "kv_blocks_evicted": 2, "kv_blocks_copied": 1, "kv_bytes_used": 0, "kv_bytes_kept": 3072,
    "kv_bytes_empty": 0, "kv_waste": 0.25, "kv_block_bytes": 1024, "weight_bytes": 93_000_000,
    "context": 128, "sliding_context": None,
})  # fmt: skip


class NoControl:
    """A tokenizer without control tokens: a transcript never finds the end of an answer."""

    def is_control(self, token_id: int) -> bool:
        return False


@dataclass
class FakeLLM:
    """Streams `pieces`; `between` runs before each piece, with its index."""

    pieces: list[str]
    between: Callable[[int], None] = lambda index: None
    records: list[StepRecord] = field(default_factory=list)
    prompts: list[list[int]] = field(default_factory=list)
    given: list[tuple[SamplingParams, RequestOptions | None]] = field(default_factory=list)
    aborted: int = 0
    diverged_text: str = " a"
    tokenizer: NoControl = field(default_factory=NoControl)
    info: ClassVar = SimpleNamespace(
        kv_blocks=8,
        block_size=32,
        block_bytes=1024,
        context=128,
        sliding_context=None,
        sampling=None,
    )

    def template_for(self, *, tools: bool) -> str | None:
        return None

    def encode_chat(self, messages: list[dict[str, str]], **_: object) -> list[int]:
        return [len(message["content"]) for message in messages]

    def stream(
        self, prompt: list[int], params: SamplingParams, options: RequestOptions | None = None
    ) -> Iterator[StreamChunk]:
        self.prompts.append(prompt)
        self.given.append((params, options))
        done = False
        try:
            for index, piece in enumerate(self.pieces):
                self.between(index)
                done = index == len(self.pieces) - 1
                step = self.records[-1].step if self.records else None
                output = self._output(prompt) if done else None
                yield StreamChunk(piece, (index,), output, step=step)
        finally:
            self.aborted += not done

    def stats(self) -> dict[str, object]:
        return dict(STATS)

    def _output(self, prompt: list[int]) -> RequestOutput:
        text = "".join(self.pieces)
        return RequestOutput(
            tuple(prompt),
            (Completion(text, tuple(range(len(self.pieces))), None, "stop"),),
            Usage(len(prompt), len(self.pieces), 2),
            CacheRecord(2, CacheSource.PROCESS, CacheReason.DIVERGED, 2, self.diverged_text, 12.34),
            Metrics(10.0, 5.0, 100.0, 200.0, 1024),
            seed=5,
        )
