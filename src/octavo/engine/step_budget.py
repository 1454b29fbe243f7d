"""StepBudget: how many rows of a prompt fit the time meant for a step.

Comes in: the cost interpreter's counts for a program, the spans that steps ran, and how long they
took. Goes out: the end of the next chunk, and what rows would have cost. Reads no clock itself and
knows nothing of requests, blocks or arrays.

A step is priced in units, one FLOP of a matmul each:

    matmuls of all rows + reading the weights once
    + for each span  max(attention of its rows, reading the K and V they see once)

so a decode is no kind of its own: one row of a long context is priced by its reads, a chunk by its
arithmetic, a decode that rides with a chunk pays for its K and V and not for the weights again.

Two things are measured. `rate`, units a second, by steps that hold a chunk, where arithmetic rules.
The units of a byte, by steps that only read: decodes of few rows, no chunk. Neither kind can spoil
what the other taught; steps between the two teach nothing. Each is a median of three: one outlier
changes nothing, and a machine that changed its speed is believed at the second step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from octavo.program.cost import Work, cost, expert_bytes, uniform_weights, unread_bytes
from octavo.program.kv_bytes import PageFormats
from octavo.program.ops import Attend, Head
from octavo.program.program import Program

# Where time bounds a chunk with more to come, it is a multiple of these rows: the tokens of a block
# by default, so that a prompt begun at 0 is cut between blocks and leaves no block half filled; and
# few lengths have to be priced. Matmul kernels need no such multiple: theirs are 6 rows, and 96.
TILE = 32
FIRST_CHUNK = 128  # rows of prompts in a step before anything was measured

# Time of a FLOP of attention over one of a matmul. The bf16 peak is half the int8 peak, and over a
# prompt attention reaches 43-60 % of the one, matmuls 48-65 % of the other (docs/kernels.md). Where
# it is wrong the rate makes up for it, since a chunk is hardly deeper than the one before.
ATTENTION_WEIGHT = 2.0

# Until measured: about 500 GFLOP/s of int8 against 28 GB/s of decode, on the same machine. What is
# measured is believed within a factor of 8: the two speeds are never taken at the same moment.
UNITS_PER_BYTE = 18.0
_BELIEVED = (UNITS_PER_BYTE / 8, UNITS_PER_BYTE * 8)


@dataclass(frozen=True, slots=True)
class _Group:
    """Attention of a layer group, over all its layers."""

    window: int
    pair: float  # units for a row and a token it sees
    kv_bytes: float  # read for a token seen


class _Costs:
    """A program's costs as factors of rows, pairs and tokens, read off the cost interpreter."""

    def __init__(self, program: Program, formats: PageFormats, weight_bytes: float) -> None:
        weights = uniform_weights(program, 8)
        usual = formats._replace(sinks=None)  # what most tokens take
        one = cost(program, Work(rows=1), weight_bytes=weights, formats=usual)
        self.row = self.head = 0.0
        pairs = [0.0] * len(program.groups)
        read = [0.0] * len(program.groups)
        for op, each in zip(program.ops, one, strict=True):  # of one row, which sees itself
            if isinstance(op, Attend):
                pairs[op.group] += each.flops * ATTENTION_WEIGHT
                read[op.group] += each.kv_read_bytes
            elif isinstance(op, Head):
                self.head += each.flops
            else:
                self.row += each.flops
        self.weight_bytes = weight_bytes
        byte = weight_bytes / sum(weights.values())  # of a value
        self._experts = expert_bytes(program, {name: byte * n for name, n in weights.items()})
        # By the assumed price: a measured one would change what a chunk costs between two chunks.
        self.weights = weight_bytes * UNITS_PER_BYTE
        self.groups = [
            _Group(spec.most_seen, pair, kv_bytes)
            for spec, pair, kv_bytes in zip(program.groups, pairs, read, strict=True)
        ]

    def attention(self, begin: int, end: int, units_per_byte: float) -> float:
        work = Work(rows=end - begin, past=begin)
        return sum(
            max(
                group.pair * work.scores(group.window),
                group.kv_bytes * work.tokens_seen(group.window) * units_per_byte,
            )
            for group in self.groups
        )

    def bytes_read(self, spans: Iterable[tuple[int, int]]) -> float:
        """The weights once, of experts those that the rows meet, and for each span the K and V that
        it sees."""
        works = [Work(rows=end - begin, past=begin) for begin, end in spans]
        kv = sum(g.kv_bytes * work.tokens_seen(g.window) for work in works for g in self.groups)
        rows = sum(work.rows for work in works)
        return self.weight_bytes - unread_bytes(self._experts, rows) + kv


class StepBudget:
    """Prices one step at a time: after `open`, `fit` asks and `take` books."""

    def __init__(
        self, program: Program, *, formats: PageFormats, weight_bytes: float,
        target_seconds: float | None, max_rows: int, min_chunk: int = 32,
    ) -> None:  # fmt: skip
        """`weight_bytes` are those one forward reads. Without a target only `max_rows` bounds a
        step."""
        assert 0 < min_chunk <= max_rows
        assert target_seconds is None or target_seconds > 0
        self._costs = _Costs(program, formats, weight_bytes)
        self._target = target_seconds
        self.max_rows = max_rows
        self._min_chunk = min_chunk
        self._rates: deque[float] = deque(maxlen=3)  # units a second
        self._byte_prices: deque[float] = deque(maxlen=3)  # units
        self._rate: float | None = None  # medians of the two
        self._units_per_byte = UNITS_PER_BYTE
        self.open()

    def open(self) -> None:
        """Begin a step, of no rows yet."""
        self.rows_left = self.max_rows
        # Bounds chunks while nothing is measured, and the units say nothing.
        self._first_rows_left = FIRST_CHUNK if self._rate is None else self.max_rows
        self._rows = 0
        self._heads = 0
        self._attention = 0.0
        self._unpriced: list[tuple[int, int]] = []  # taken, not yet in _attention
        self._has_chunk = False

    def take(self, begin: int, end: int) -> None:
        """Rows [begin, end) of one sequence will run: a decode, or what `fit` gave."""
        rows = end - begin
        assert 0 < rows <= self.rows_left
        self.rows_left -= rows
        self._rows += rows
        self._heads += 1
        self._unpriced.append((begin, end))  # a step of decodes alone never asks for the price
        if rows > 1:
            self._has_chunk = True
            self._first_rows_left -= rows

    def fit(self, begin: int, wanted_end: int) -> int:
        """The end of the longest chunk from `begin` that fits; `begin` if none does. The first
        chunk of a step gets min_chunk rows however late it is, or prompts would starve."""
        wanted = wanted_end - begin
        assert wanted > 0
        room = min(wanted, self.rows_left)
        rows = room if self._target is None else self._longest(begin, wanted)
        if not self._has_chunk:
            rows = max(rows, min(self._min_chunk, room))
        return begin + rows

    def observe(self, spans: Collection[tuple[int, int]], seconds: float) -> None:
        """Learn from a step: the rows [begin, end) of each of its sequences, and its duration."""
        if seconds <= 0:  # too short for the clock
            return
        rows = sum(end - begin for begin, end in spans)
        in_chunks = rows - sum(end - begin == 1 for begin, end in spans)
        matmuls = self._costs.row * rows + self._costs.head * len(spans)
        if in_chunks >= self._min_chunk:
            self._rates.append((matmuls + self._costs.weights + self._price(spans)) / seconds)
            self._rate = _median(self._rates)
        elif self._rate is not None and matmuls < self._costs.weights:
            low, high = _BELIEVED
            price = self._rate * seconds / self._costs.bytes_read(spans)
            self._byte_prices.append(min(max(price, low), high))
            self._units_per_byte = _median(self._byte_prices)

    def seconds(self, begin: int, end: int) -> float | None:
        """Return what computing rows [begin, end) adds to a step at the measured rate: the time
        saved when they are reused. None before a chunk was measured."""
        return None if self._rate is None else self.units(begin, end) / self._rate

    def units(self, begin: int, end: int) -> float:
        """The price of computing rows [begin, end) in a step that reads the weights anyway."""
        return self._costs.row * (end - begin) + self._price([(begin, end)])

    def _longest(self, begin: int, wanted: int) -> int:
        """The rows that fit the time: all that are wanted, else whole tiles."""
        room = min(wanted, self.rows_left, max(0, self._first_rows_left))
        self._attention += self._price(self._unpriced)
        self._unpriced.clear()
        if room == wanted and self._fits(begin, begin + room):
            return room
        low, high = 0, room // TILE  # low tiles fit, more than high do not
        while low < high:
            middle = (low + high + 1) // 2
            if self._fits(begin, begin + middle * TILE):
                low = middle
            else:
                high = middle - 1
        return low * TILE

    def _fits(self, begin: int, end: int) -> bool:
        assert self._target is not None
        if self._rate is None:
            return True
        costs = self._costs
        matmuls = costs.row * (self._rows + end - begin) + costs.head * (self._heads + 1)
        attention = self._attention + self._price([(begin, end)])
        return matmuls + costs.weights + attention <= self._rate * self._target

    def _price(self, spans: Iterable[tuple[int, int]]) -> float:
        """Units of the attention of these rows."""
        return sum(self._costs.attention(begin, end, self._units_per_byte) for begin, end in spans)


def _median(measured: Collection[float]) -> float:
    """Return the median; of two it is the lower one, a slower rate or a lower price."""
    return sorted(measured)[(len(measured) - 1) // 2]
