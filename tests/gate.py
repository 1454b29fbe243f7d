"""A gate in front of an LLM's model: tests decide when a step runs, and see which one."""

from __future__ import annotations

import asyncio
import threading

import pytest

from octavo import LLM
from octavo.batch import Batch, StepOutput
from octavo.engine.step import StepPlan

PATIENCE = 60  # seconds; what never comes fails a test


class Gate:
    def __init__(self, llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[Batch] = []
        self.threads: list[str] = []  # which ran them
        self._forward = llm.loop.engine.runner.forward
        self._arrived = threading.Semaphore(0)
        self._passes = threading.Semaphore(0)
        self._is_open = False
        monkeypatch.setattr(llm.loop.engine.runner, "forward", self._run)

    def wait(self) -> None:
        """Until one more step stands at the gate."""
        assert self._arrived.acquire(timeout=PATIENCE), "no step came to the gate"

    async def arrival(self) -> None:
        await asyncio.to_thread(self.wait)

    def let_one_pass(self) -> None:
        self._passes.release()

    def open(self) -> None:
        self._is_open = True
        self._passes.release()

    def _run(self, plan: StepPlan) -> StepOutput:
        assert plan.batch is not None
        self.batches.append(plan.batch)
        self.threads.append(threading.current_thread().name)
        self._arrived.release()
        if not self._is_open:
            assert self._passes.acquire(timeout=PATIENCE), "the gate stayed shut"
        return self._forward(plan)
