"""`--trace-steps`: after every step the text so far, and what the cache did in that step.

Numbers and counts are those of the StepRecords, which --json has under `steps`: they are read off
the batches that ran, and nothing here works them out from the length of the text.
"""

from __future__ import annotations

import json
from itertools import takewhile
from typing import TYPE_CHECKING

from octavo.cli.screen import Screen
from octavo.records import StepRecord
from octavo.request import StreamChunk

if TYPE_CHECKING:
    from octavo.serving.llm import LLM


class StepTrace:
    """`start` is the text before the answer: the prompt where it is continued, else nothing."""

    def __init__(self, llm: LLM, screen: Screen, *, start: str) -> None:
        self.records: list[StepRecord] = []
        self._llm = llm
        self._screen = screen
        self._text = start
        self._last_step = llm.records[-1].step if llm.records else -1
        screen.say(f"{'step':>4}  {'computed':>8}  {'read':>6}  text so far")

    def show(self, chunk: StreamChunk) -> None:
        """Print the steps up to the one that gave `chunk`; the engine may be ahead of it."""
        new = self._new_records(chunk.step)
        for record in new[:-1]:  # pieces of a long prompt
            self._line(record)
        self._text += chunk.text
        if new:
            self._line(new[-1])
        elif chunk.text:  # held back until the end was certain
            self._screen.say(f"{'':>4}  {'':>8}  {'':>6}  {self._quoted()}")

    def _line(self, record: StepRecord) -> None:
        self.records.append(record)
        computed, read = f"{record.computed_tokens:,}", f"{record.kv_read_tokens:,}"
        self._screen.say(f"{record.step:>4}  {computed:>8}  {read:>6}  {self._quoted()}")

    def _quoted(self) -> str:
        """The text on one line, its ends visible."""
        return json.dumps(self._text, ensure_ascii=False)

    def _new_records(self, step: int | None) -> list[StepRecord]:
        """Read from the newest back to the last one told, so that no step is read twice."""
        newest_first = reversed(self._llm.records)
        new = list(takewhile(lambda record: record.step > self._last_step, newest_first))
        new = [record for record in new if step is not None and record.step <= step]
        if new:
            self._last_step = new[0].step
        return new[::-1]
