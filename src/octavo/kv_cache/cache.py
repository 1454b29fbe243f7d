"""KV cache: the door to all bookkeeping of blocks. Which tokens of which sequence are in which
blocks of each layer group, what others share of them, what may be written, and what forgotten.

Comes in: tokens as ids, and which of them were computed. Goes out: block numbers, and the transfers
to make before rows run. Knows no requests, no steps and no arrays.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

from octavo.kv_cache.block_names import Namespace
from octavo.kv_cache.block_pool import BlockPool
from octavo.kv_cache.block_table import BlockTable, GroupBlocks, num_unfilled
from octavo.kv_cache.counts import KVCounts
from octavo.kv_cache.eviction import EvictionOrder
from octavo.kv_cache.groups import BlockId, KeepAll, KeepEnds, KeepLast, LayerGroup, Layout
from octavo.kv_cache.pins import Pins
from octavo.kv_cache.prefix_index import Node, PrefixIndex, Root
from octavo.kv_cache.prefix_uses import PrefixUses
from octavo.kv_cache.sharing import NO_MATCH, Match, Sharing
from octavo.records import BlockEvent, BlockEventKind, CacheReason

__all__ = [
    "NO_MATCH", "BlockTable", "KVCache", "KVCounts", "KeepAll", "KeepEnds", "KeepLast",
    "LayerGroup", "Layout", "Match", "Root", "Transfer",
]  # fmt: skip


class Transfer(NamedTuple):
    """Work on pages to do before a step's rows run. Blocks are the group's own numbers, from 0."""

    kind: Literal["copy", "release"]  # block -> to; the block's memory goes back to the system
    group: int
    block: int
    to: int = -1


class KVCache:
    def __init__(
        self,
        groups: Sequence[LayerGroup],
        *,
        block_size: int,
        budget: int,
        max_rows: int = 512,
        num_remembered: int | None = None,
        order: EvictionOrder | None = None,
        cost: Callable[[int, int], float] = lambda begin, end: float(end - begin),
        clock: Callable[[], float] = time.monotonic,
        on_event: Callable[[BlockEvent], None] | None = None,
    ) -> None:
        """`budget` is in bytes. A step runs at most `max_rows` rows of a sequence. The last
        `num_remembered` blocks evicted are known as such. `cost(begin, end)`, in any unit: to
        compute tokens [begin, end) of a sequence again."""
        self.groups = tuple(groups)
        self.block_size, self.budget = block_size, budget
        self.layout = Layout(groups, block_size, max_rows)
        sizes = [group.block_bytes for group in groups]
        remembered = budget // min(sizes) if num_remembered is None else num_remembered
        self.index = PrefixIndex(self.layout, num_remembered=remembered)
        self.pool = BlockPool(sizes, budget, order=order, forget=self._forget, clock=clock)
        self._sharing = Sharing(self.layout, self.pool, self.index, cost=cost, tell=self._tell)
        self.pins = Pins(self.layout, self.pool, self._sharing)
        self.uses = PrefixUses()
        self._tables: dict[BlockTable, None] = {}  # that have begun
        self.clock, self.cost = clock, cost
        self._on_event = on_event

    def open(self, namespace: Namespace | None) -> Root:
        """The root under which requests of a namespace find what others computed. None: a root
        of its own for a request that shares nothing."""
        return self.index.root(namespace)

    def close(self, root: Root) -> None:
        """Forget all that was registered under a root that only one request used."""
        self._sharing.close(root)

    def clear(self, salt: str | None) -> int:
        """Forget what nobody holds of all that was registered under a salt, or under any (None),
        after its pins were given up. How many blocks that were."""
        roots = [r for r in self.index.roots() if r.namespace and salt in (None, r.namespace.salt)]
        for pin in [pin for root in roots for pin in self.pins.of(root)]:
            self.pins.remove(pin)
        return sum(self._sharing.clear(root) for root in roots)

    def match(self, root: Root, tokens: Sequence[int]) -> Match:
        """The longest known prefix of `tokens` that the rows still to run can use."""
        return self._sharing.match(root, tokens)

    def miss_reason(self, root: Root, tokens: Sequence[int], match: Match) -> CacheReason | None:
        """Say why not all that could be reused was; None if it was."""
        return self._sharing.miss_reason(root, tokens, match)

    def begin(self, root: Root, match: Match, num_prompt: int = 0) -> BlockTable:
        """A table that shares the blocks of a match which rows need, the partly matching one too:
        it is copied when its next slot is written. Of what its windows leave behind, the last to be
        evicted is what rows read that go on where this match ends, or where the prompt does."""
        last = match.nodes[-1] if match.nodes else root
        if match.nodes:
            self.uses.note(last)
        table = self._start(root, last, match.blocks(self.layout), match.num_tokens)
        table.ends = tuple(end for end in {match.row, num_prompt - 1} if end > 0)
        return table

    def fork(self, table: BlockTable) -> BlockTable:
        """Another table of the same tokens, sharing every block."""
        assert not table.copies, "a table forks after its step was committed"
        count = self.layout.count(table.num_stored)
        blocks = tuple(blocks[:count] for blocks in table.blocks)
        twin = self._start(table.root, table.node, blocks, table.num_stored)
        twin.ends = table.ends
        return twin

    def reserve(self, table: BlockTable, end: int) -> bool:
        """Make the slots of tokens [num_stored, end) this table's own to write. False if there is
        no room; then nothing has changed."""
        if end <= table.num_stored or table.is_writable(end, self.pool.num_holds):
            return True
        has, count = len(table.blocks[0]), max(len(table.blocks[0]), self.layout.count(end))
        more, at = self.layout.between(has, count), table.num_stored // self.block_size
        copy = self._sharing.needs_copy(table)
        table.own_at = -1 if copy else self.pool.num_holds
        if count == has and not copy:
            return True
        copies = self.layout.between(at, at + copy)
        taken = self.pool.allocate([n + m for n, m in zip(more, copies, strict=True)])
        if taken is None and copy and self._sharing.may_take_over(table):
            copy = False
            taken = self.pool.allocate(more)  # first: it evicts what follows the block
            if taken is not None:
                self._sharing.take_over(table)
        if taken is None:
            return False
        self._tell(BlockEventKind.ALLOCATE, [block for new in taken for block in new])
        if copy:
            self._sharing.copy(table, taken)
        table.extend(count, taken)
        return True

    def transfers(self) -> list[Transfer]:
        """Return what is to be done, in order, before rows run for which slots were reserved."""
        number = self.pool.number
        released = [Transfer("release", *number(block)) for block in self.pool.released]
        copies = [copy for table in self._sharing.copying for copy in table.copies]
        return released + [Transfer("copy", *number(b), number(to)[1]) for b, to in copies]

    def commit_transfers(self) -> None:
        """Tell the cache that the transfers of the last step were made."""
        self.pool.end_release()
        for table in tuple(self._sharing.copying):
            self._sharing.end_copies(table)

    def commit(self, table: BlockTable, tokens: Sequence[int], accepted: int) -> None:
        """K and V of the first `accepted` tokens are in the blocks, and stay. Registers the blocks
        that became whole, then lets go what no row from `accepted` on needs."""
        assert not table.copies, "rows run after the transfers are made"
        table.num_stored = max(table.num_stored, accepted)
        if table.node.end + self.block_size <= table.num_stored:
            self._sharing.register_whole(table, tokens)
        if self.layout.windowed:
            kept, spare = table.let_go(accepted)
            if kept or spare:
                self._sharing.let_go(table, kept, spare)

    def truncate(self, table: BlockTable, num_tokens: int) -> None:
        """Take back the tokens from `num_tokens` on: they are found no more, where no other table
        has them, and their slots can be reserved again."""
        assert num_tokens <= table.num_stored
        assert not table.copies
        assert table.can_shrink(num_tokens), "blocks that rows need were let go"
        self._sharing.take_back(table, num_tokens)
        table.num_stored = num_tokens
        self.pool.free(table.cut(self.layout.count(num_tokens)))

    def free(self, table: BlockTable, tokens: Sequence[int] | None = None) -> None:
        """Give all blocks back, the tail first. What was registered stays findable; with `tokens`
        so does the last block, partly filled. A copy that was not made holds nothing."""
        if tokens is not None and not table.copies:
            self._sharing.register_tail(table, tokens)
        self._tables.pop(table, None)
        self._sharing.end_copies(table)
        table.num_stored, table.node = 0, table.root
        self.pool.free(table.cut(0))

    def can_run(self, table: BlockTable, row: int) -> bool:
        """Tell whether the table has all blocks that rows from `row` on read, or write next."""
        return table.can_run(row)

    @property
    def block_bytes(self) -> int:
        """Bytes of a block in every group, behind the beginning of a sequence."""
        return self.layout.block_bytes

    @property
    def room(self) -> int:
        """Bytes that no table holds."""
        return self.budget - self.pool.bytes_held

    def need(self, num_tokens: int, match: Match = NO_MATCH) -> int:
        """Bytes that a table takes for `num_tokens`, beside what others hold of the match."""
        count = self.layout.count(num_tokens)
        blocks, whole = match.blocks(self.layout), len(match.nodes)
        free = [[b is not None and not self.pool.num_holders(b) for b in ids] for ids in blocks]
        most = zip(self.layout.between(whole, count), free, self.layout.at_most(count), strict=True)
        own = [min(n + sum(f[:whole]), m) for n, f, m in most]
        partial = [b for ids in blocks for b in ids[whole:] if b is not None]
        if any(map(self.pool.num_holders, partial)):  # it is copied: what nobody holds waits too
            own = [n + sum(f[whole:]) for n, f in zip(own, free, strict=True)]
        return self.layout.bytes(own)

    def need_more(self, table: BlockTable, num_tokens: int) -> int:
        """Bytes that a table which has begun takes beyond those it has, to hold `num_tokens`."""
        return self.layout.bytes(table.num_more(self.layout.count(num_tokens)))

    def at_most(self, num_tokens: int, *, shared: int = 0) -> int:
        """Bytes of a table at its longest, without whole blocks of the first `shared` tokens."""
        count = self.layout.count(num_tokens)
        own = self.layout.between(shared // self.block_size, count)
        return self.layout.bytes(map(min, own, self.layout.at_most(count)))

    def bytes_held(self, tables: Sequence[BlockTable]) -> int:
        """Bytes of the different blocks that these tables hold."""
        if len(tables) == 1:
            return self.layout.bytes(len(b) - b.count(None) for b in tables[0].blocks)
        held = {block for table in tables for block in table.present()}
        return sum(self.groups[self.pool.group(block)].block_bytes for block in held)

    def reclaim(
        self, *, empty_for: float, cached_for: float
    ) -> tuple[list[Transfer], float | None]:
        """Blocks whose memory goes back to the system now, after so many seconds without use; and
        in how many seconds there may be more, or None."""
        now = self.clock()
        idle = self.pool.reclaim(empty_since=now - empty_for, cached_since=now - cached_for)
        oldest = (self.pool.oldest_empty, empty_for), (self.pool.oldest_evictable, cached_for)
        due = min((t + wait for t, wait in oldest if t is not None), default=None)
        releases = [Transfer("release", *self.pool.number(block)) for block in idle]
        return releases, None if due is None else max(0.0, due - now)

    def view(self, table: BlockTable) -> tuple[Sequence[int], ...]:
        """The block numbers of each group, as kernels read them; 0 where it has no block."""
        return table.numbers or table.view(self.pool.first_ids)

    def counts(self) -> KVCounts:
        pool, copied, pinned = self.pool, self._sharing.num_copied, len(self.pins.holds)
        blocks = pool.num_blocks, pool.num_held, pool.num_evictable, pool.num_evicted
        return KVCounts(*blocks, copied, *pool.bytes_in_memory, pinned)

    @property
    def slots_unfilled(self) -> int:
        """Slots of the tables' blocks that hold no token of anybody's."""
        return num_unfilled(self._tables, self.index.num_named, self.pool.num_holds)

    def recover(self, tables: Iterable[BlockTable]) -> None:
        """After an exception anywhere: what these tables have stored is so, and what they do not
        hold is free. What could be found can be found still; what was reserved is to be again."""
        self._tables = dict.fromkeys(tables)
        cached = self._sharing.recover(self._tables)
        self.pins.count()
        holds = Counter(self.pins.holds)
        for table in self._tables:
            table.shorten(self.layout.count(table.num_stored))
            holds.update(table.present())
        self.pool.rebuild(holds, cached)

    def check_integrity(self, tables: Sequence[BlockTable]) -> None:
        """AssertionError unless these are all tables, every hold is theirs, a copy's or a pin's,
        the index agrees, and the budget is kept."""
        assert set(tables) == self._tables.keys(), "tables that have begun"
        holds = Counter(self.pins.holds)
        holds.update(source for table in tables for source, _ in table.copies)
        for table in tables:
            holds.update(table.present())
            table.check_integrity(self.pool.first_ids)
        self._sharing.check_integrity(tables)
        assert self.slots_unfilled == num_unfilled(self._tables, self.index.num_named, None)
        for part in (self.pool, self.pins, self.index):
            part.check_integrity()
        self.index.check_agreement(self.pool)
        assert self.pool.holds() == holds

    def _start(self, root: Root, node: Node, blocks: GroupBlocks, num_stored: int) -> BlockTable:
        """A table that holds these blocks too."""
        table = BlockTable(self.layout, root, node, blocks, num_stored)
        self.pool.hold(table.present())
        self._tables[table] = None
        return table

    def _forget(self, block: BlockId) -> list[BlockId]:
        self._tell(BlockEventKind.EVICT, [block])
        return self.index.forget(block)

    def _tell(self, kind: BlockEventKind, blocks: Iterable[BlockId]) -> None:
        if self._on_event is not None:
            for block in blocks:
                self._on_event(BlockEvent(kind, *self.pool.number(block)))
