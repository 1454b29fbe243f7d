"""What `octavo simulate` runs: a trace of requests through the real block pool, without a model.

Comes in: a trace in Mooncake's format, one JSON object a line, where each id of `hash_ids` stands
for a block of 512 tokens and all before it; blank lines are passed over. Goes out: what was found
in the cache, and at what price. An id plays the token of a block of one token, so pool, index and
tables do what they do for a model. Requests run one after the other; answers are not registered; a
prompt found whole counts whole. Hits, blocks and evictions are read off the pool and the block
tables as the trace runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from octavo.errors import TraceError, UsageError, counted
from octavo.given_text import without_mark
from octavo.kv_cache.block_names import Namespace
from octavo.kv_cache.cache import KVCache
from octavo.kv_cache.cost_aware import CostAware
from octavo.kv_cache.eviction import EvictionOrder, LeastRecentlyUsed
from octavo.kv_cache.groups import LayerGroup
from octavo.values import is_whole

TRACE_BLOCK = 512  # tokens
POLICIES: Mapping[str, Callable[[], EvictionOrder]] = MappingProxyType(
    {"lru": LeastRecentlyUsed, "cost": CostAware}
)


@dataclass(frozen=True, slots=True)
class TraceRequest:
    input_length: int  # tokens
    hash_ids: tuple[int, ...]  # of its blocks; the last may be partly filled


@dataclass(frozen=True, slots=True)
class Simulation:
    policy: str
    num_blocks: int | None  # None: as many as the trace can use
    hit_tokens: int
    input_tokens: int
    evictions: int
    block_operations: int  # blocks matched, taken, registered, freed and evicted
    seconds: float  # for all of it

    @property
    def hit_rate(self) -> float:
        return self.hit_tokens / self.input_tokens

    @property
    def us_per_block_operation(self) -> float:
        return 1e6 * self.seconds / self.block_operations

    def to_dict(self) -> dict[str, object]:
        return {
            "policy": self.policy,
            "blocks": self.num_blocks,
            "hit_tokens": self.hit_tokens,
            "input_tokens": self.input_tokens,
            "hit_rate": self.hit_rate,
            "evictions": self.evictions,
            "block_operations": self.block_operations,
            "us_per_block_operation": self.us_per_block_operation,
        }


def read_trace(path: Path) -> list[TraceRequest]:
    """Read all requests of a trace; TraceError names the first line that is none."""
    requests = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if number == 1:
                line = without_mark(str(path), line)
            if not line.strip():
                continue
            try:
                requests.append(_parse(line))
            except ValueError as error:
                raise TraceError(f"{path}, line {number}: {error}") from None
    if not requests:
        raise TraceError(f"{path}: no requests in it")
    return requests


def simulate(trace: Sequence[TraceRequest], *, num_blocks: int | None, policy: str) -> Simulation:
    """Run the trace through a pool of `num_blocks`, or of all that it can use."""
    largest = max(len(request.hash_ids) for request in trace)
    if num_blocks is not None and num_blocks < largest:
        raise UsageError(
            f"{counted(num_blocks, 'block')}: a request of the trace has {largest:,}, which are "
            "all held while it runs; give at least as many"
        )
    usable = sum(len(request.hash_ids) for request in trace)
    replay = _Replay(min(num_blocks or usable, usable), POLICIES[policy]())
    start = time.perf_counter()
    for request in trace:
        replay.run(request)
    seconds = time.perf_counter() - start
    counts = replay.kv.counts()
    assert counts.blocks_used == 0
    return Simulation(
        policy=policy,
        num_blocks=num_blocks,
        hit_tokens=replay.hit_tokens,
        input_tokens=sum(request.input_length for request in trace),
        evictions=counts.blocks_evicted,
        block_operations=replay.block_operations + counts.blocks_evicted,
        seconds=seconds,
    )


class _Replay:
    def __init__(self, num_blocks: int, order: EvictionOrder) -> None:
        self.kv = KVCache(
            [LayerGroup(block_bytes=1)],
            block_size=1, budget=num_blocks, order=order, cost=self._cost,
        )  # fmt: skip
        self._root = self.kv.open(Namespace("trace", "none", "none", "none"))
        self._input_length = 0  # of the request that runs
        self.hit_tokens = 0
        self.block_operations = 0

    def run(self, request: TraceRequest) -> None:
        ids = request.hash_ids
        self._input_length = request.input_length
        match = self.kv.match(self._root, ids)
        matched = match.num_tokens
        table = self.kv.begin(self._root, match)
        self.hit_tokens += self._tokens(0, matched)
        has_room = self.kv.reserve(table, len(ids))
        assert has_room, "nothing else is held"
        self.kv.commit(table, ids, len(ids))
        # Matched, taken, registered and freed; the order of eviction is told of each.
        taken = len(ids) - matched
        self.block_operations += matched + taken + taken + len(ids)
        self.kv.free(table)

    def _tokens(self, begin: int, end: int) -> int:
        """Prompt tokens in its blocks [begin, end)."""
        return min(TRACE_BLOCK * end, self._input_length) - TRACE_BLOCK * begin

    def _cost(self, begin: int, end: int) -> float:
        return float(self._tokens(begin, end))


def _parse(line: bytes) -> TraceRequest:
    """Read one line; ValueError says what is wrong with it."""
    fields = _read_json(line)
    if not isinstance(fields, dict):
        raise ValueError("expected a JSON object")
    for name in ("timestamp", "input_length", "output_length"):
        if not _is_count(fields.get(name)):
            raise ValueError(f"{name}: expected a whole number from 0 on")
    ids, length = fields.get("hash_ids"), fields["input_length"]
    if not isinstance(ids, list) or not all(_is_count(i) for i in ids):
        raise ValueError("hash_ids: expected a list of whole numbers from 0 on")
    if not length:
        raise ValueError("input_length: expected at least 1 token")
    expected = -(-length // TRACE_BLOCK)
    if len(ids) != expected:
        raise ValueError(
            f"hash_ids: expected {expected}, one for every {TRACE_BLOCK} tokens of "
            f"input_length {length}; found {len(ids)}"
        )
    return TraceRequest(length, tuple(ids))


def _read_json(line: bytes) -> object:
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}") from None
    except (ValueError, RecursionError):
        raise ValueError("not JSON: a number too long, or brackets too deep") from None


def _is_count(value: object) -> bool:
    return is_whole(value) and 0 <= value < 2**63  # names of blocks hold 64 bits
