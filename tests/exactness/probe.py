"""Probe: what the tests put between the parts of a real engine.

Takes down every row that comes out of the head, counts what happened in `seen`, and raises faults;
it knows whom each may end. Every block is filled with NaN when it is allocated, so that a slot that
nobody wrote shows up at once. It judges nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from octavo.batch import Batch, StepOutput, Want
from octavo.engine.engine import Engine
from octavo.engine.step_plan import StepPlan
from octavo.kv_cache.manager import BlockTable
from octavo.kv_cache.prefix_index import Node
from octavo.request import Branch, Request
from tests.exactness.alone import NAN, Row
from tests.exactness.plain_pool import PlainPool, watch

Tokens = tuple[int, ...]
_MS_PER_STEP, _MS_PER_ROW = 3.0, 1.0  # of the engine's clock


class Injected(Exception):
    """A fault that the test put into a step."""


class InjectedInterrupt(KeyboardInterrupt):
    """Ctrl-C at a bad moment."""


@dataclass
class Fault:
    """Raised once, `after` so many calls of its `kind`: forward, copy, draw, pool, interrupt (in
    forward), interrupted draw; nan: in one row. culprit: raised by every step with `request`."""

    kind: str
    after: int = 0
    request: Request | None = None


class Clock:
    """Seconds, which pass when rows run, and when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Probe:
    def __init__(self, engine: Engine, clock: Clock, seen: Counter[str]) -> None:
        self.engine = engine
        self.clock = clock
        self.seen = seen
        self.kv = engine._kv
        self.runner = engine._runner
        self.plan = StepPlan()  # of the step that runs
        self.rows: list[tuple[Tokens, Row]] = []  # the tokens before each, and what the head gave
        self.computed: dict[Branch, Tokens] = {}  # whose K and V may be found by others
        self.fault: Fault | None = None
        self.exposed = False  # to faults
        self.booking: Request | None = None
        self.may_fail: set[Request] = set()
        self.plain: PlainPool = watch(self.kv.pool, clock, self._pool_called)
        self._hook()

    @contextmanager
    def expose(self) -> Iterator[None]:
        """Faults are raised in here, and go no further."""
        self.plan, self.exposed = StepPlan(), True
        try:
            yield
        except (Injected, InjectedInterrupt):
            self.seen["call raised"] += 1
        self.exposed, self.booking = False, None

    def _hook(self) -> None:
        for owner, name, hook in (
            (self.engine._scheduler, "schedule", self._schedule),
            (self.engine._scheduler, "_must_wait", self._must_wait),
            (self.runner, "forward", self._forward),
            (self.runner, "copy_blocks", self._copy_blocks),
            (self.engine, "_book", self._book),
            (self.engine._sampler, "draw", self._draw),
            (self.kv, "reserve", self._reserve),
            (self.kv, "_take_over", self._take_over),
            (self.kv, "_register", self._register),
            (self.engine._scheduler, "fork", self._fork),
            (self.engine._scheduler, "drop", self._drop),
        ):
            setattr(owner, name, partial(hook, getattr(owner, name)))

    def _schedule(self, real: Callable[..., StepPlan], only: Request | None = None) -> StepPlan:
        self.seen["run of a suspect"] += only is not None
        self.plan = real(only)
        return self.plan

    def _must_wait(self, real: Callable[..., bool], *args: Any) -> bool:
        waits = real(*args)
        self.seen["waited for a leader"] += waits
        return waits

    def _forward(self, real: Callable[[Batch], StepOutput], batch: Batch) -> StepOutput:
        """Every output row gives its logits too, beside what it was asked for."""
        self._raise("forward", "interrupt", "culprit")
        if not self.plan.scheduled:  # all_rows
            return real(batch)
        self.clock.now += (_MS_PER_STEP + _MS_PER_ROW * len(batch.tokens)) / 1e3
        count = len(batch.output_rows)
        starts = batch.edit_starts
        twice = replace(
            batch,
            output_rows=np.concatenate([batch.output_rows] * 2),
            wants=np.concatenate([batch.wants, np.full(count, Want.LOGITS, np.int32)]),
            edit_starts=None
            if starts is None
            else np.concatenate([starts, np.full(count, starts[-1], np.int32)]),
        )
        out = real(twice)
        self._note_rows(batch, out)
        mine = replace(
            out,
            argmax=out.argmax[:count],
            log_sum_exp=out.log_sum_exp[:count],
            top_ids=out.top_ids[:count],
            top_logits=out.top_logits[:count],
            logits=out.logits[: len(out.logits) - count],
        )
        if count and self._is_due("nan"):
            mine.log_sum_exp[0] = np.nan
            self.may_fail.add(self._owner(batch, 0)[0].request)
        return mine

    def _note_rows(self, batch: Batch, out: StepOutput) -> None:
        count = len(batch.output_rows)
        for i in range(count):
            branch, position = self._owner(batch, i)
            row = Row(out.logits[i - count], float(out.log_sum_exp[i]))
            self.rows.append((tuple(branch.tokens[: position + 1]), row))
        for item in self.plan.scheduled:
            self.computed[item.branch] = tuple(item.branch.tokens[: item.end])

    def _owner(self, batch: Batch, output: int) -> tuple[Branch, int]:
        """The branch of an output row, and its position there."""
        row = int(batch.output_rows[output])
        item = int(np.searchsorted(batch.row_starts, row, side="right")) - 1
        return self.plan.scheduled[item].branch, int(batch.positions[row])

    def _copy_blocks(self, real: Callable[..., None], pairs: Sequence[tuple[int, int]]) -> None:
        self.seen["copy-on-write"] += len(pairs)
        if pairs:
            self._raise("copy")
        real(pairs)

    def _book(self, real: Callable[..., None], request: Request, *rest: Any) -> None:
        self.booking = request
        real(request, *rest)
        self.booking = None

    def _draw(self, real: Callable[..., Any], *args: Any) -> Any:
        self._raise("draw", "interrupted draw")
        return real(*args)

    def _pool_called(self, name: str, result: Any) -> None:
        if self.exposed and result is None:
            self._raise("pool")
        if name == "allocate":
            for block in result or ():
                for pages in self.runner.pages:
                    pages.view(np.uint16).reshape(self.runner.num_blocks, -1)[block] = NAN

    def _reserve(self, real: Callable[..., bool], table: BlockTable, end: int) -> bool:
        at = table.num_stored // self.kv.block_size
        block = table.blocks[at] if end > table.num_stored and at < len(table.blocks) else None
        done = real(table, end)
        if done and block is not None and table.blocks[at] == block:
            self.seen["kept block went on in place"] += self.kv.pool.is_kept(block)
        self.seen["no room"] += not done
        return done

    def _take_over(self, real: Callable[..., bool], *args: Any) -> bool:
        taken = real(*args)
        self.seen["kept block taken over"] += taken
        return taken

    def _register(
        self, real: Callable[..., Node], table: BlockTable, tokens: Tokens, at: int
    ) -> Node:
        block, named = table.blocks[at], self.kv.index.node_of(table.blocks[at])
        node = real(table, tokens, at)
        self.seen["known at register"] += table.blocks[at] != block
        self.seen["partial block extended"] += named is node
        return node

    def _fork(self, real: Callable[..., Branch], branch: Branch, index: int) -> Branch:
        self.seen["fork of beams" if branch.request.params.beam_width else "fork of answers"] += 1
        return real(branch, index)

    def _drop(self, real: Callable[..., None], branch: Branch) -> None:
        self.seen["drop of a beam"] += 1
        real(branch)

    def _is_due(self, *kinds: str) -> bool:
        fault = self.fault
        if fault is None or fault.kind not in kinds:
            return False
        fault.after -= 1
        if fault.after >= 0:
            return False
        if fault.kind != "culprit":  # once
            self.fault = None
        self.seen[f"fault: {fault.kind}"] += 1
        return True

    def _raise(self, *kinds: str) -> None:
        fault, requests = self.fault, self.plan.requests
        if fault and fault.kind == "culprit" and fault.request not in requests:
            return
        if fault is None or not self._is_due(*kinds):
            return
        if self.booking is not None:
            self.may_fail.add(self.booking)
        elif len(requests) == 1 and not fault.kind.startswith("interrupt"):
            self.may_fail |= set(requests)
        among_others = fault.kind in ("forward", "copy", "culprit") and len(requests) > 1
        self.seen["step rolled back"] += among_others
        self.seen["culprit among others"] += among_others and fault.kind == "culprit"
        if fault.kind.startswith("interrupt"):
            raise InjectedInterrupt
        raise Injected(fault.kind)
