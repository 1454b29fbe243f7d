"""Outcome: how one request went. Whoever knows a part of it fills that in on the way; at the end it
is counted, logged and kept once, whatever the end was.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from octavo.errors import OctavoError
from octavo.protocol.common import status_of
from octavo.records import CacheRecord
from octavo.request import RequestOutput

_CLIENT_GONE = 499  # no status of HTTP, but the one that proxies log for it


class Begun(Protocol):
    """An answer that may have begun."""

    @property
    def cache(self) -> CacheRecord | None: ...


@dataclass(slots=True, eq=False)
class Outcome:
    id: str
    tenant: str
    method: str
    path: str
    traceparent: str | None = None  # the caller's own header
    begun: float = field(default_factory=time.monotonic)
    route: str | None = None  # the path as the table of routes has it; None: there is none
    cache_key: str | None = None  # the caller's label, by which its records are summed up
    noted: list[str] = field(default_factory=list)  # what was given and changes no answer
    status: int | None = None  # that was sent
    is_stream: bool = False
    is_gone: bool = False  # the client, before the end
    error: OctavoError | None = None  # that was told
    prompts: list[Sequence[int]] = field(default_factory=list)
    answers: list[Begun] = field(default_factory=list)  # one a prompt
    num_told: int = 0  # tokens of a stream, that were written or on their way
    outputs: dict[int, RequestOutput] = field(default_factory=dict)  # of prompts that ended

    def ask(self, prompts: Sequence[Sequence[int]], answers: Sequence[Begun]) -> None:
        """These prompts were given to the engine, after those that were before."""
        self.prompts += prompts
        self.answers += answers

    def answer(self, outputs: Sequence[RequestOutput]) -> None:
        """Those that were asked last have ended."""
        self.outputs.update(enumerate(outputs, start=len(self.prompts) - len(outputs)))

    @property
    def code(self) -> int:
        """The status, and in a stream that has begun with 200 what it would be now."""
        if self.is_gone:
            return _CLIENT_GONE
        if self.error is not None and (self.is_stream or self.status is None):
            return status_of(self.error)
        return self.status or 500

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.begun

    @property
    def caches(self) -> Iterator[CacheRecord | None]:
        """What was found of each prompt, None of those that never began."""
        for index, answer in enumerate(self.answers):
            output = self.outputs.get(index)
            yield answer.cache if output is None else output.cache

    @property
    def num_generated(self) -> int | None:
        """Tokens of its answers, as far as they are known."""
        if self.outputs and len(self.outputs) == len(self.prompts):
            return sum(each.usage.completion_tokens for each in self.outputs.values())
        return self.num_told if self.is_stream else None

    @property
    def finish(self) -> list[str]:
        """How its answers ended, of each kind one."""
        ends = (each.finish_reason for out in self.outputs.values() for each in out.outputs)
        return list(dict.fromkeys(ends))
