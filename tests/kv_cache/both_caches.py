"""BothCaches: a KVCache, its model of dicts and lists, and the pages, called side by side. What
they say of one call, and hold after it, is compared at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from octavo.kv_cache.cache import BlockTable, KVCache, Match
from octavo.kv_cache.eviction import EvictionOrder, LeastRecentlyUsed
from octavo.kv_cache.groups import BlockId, LayerGroup
from octavo.kv_cache.prefix_index import Node
from octavo.records import Pin
from tests.kv_cache.noted_pages import NotedPages, Text
from tests.kv_cache.plain_blocks import PRIVATE, Block, Path
from tests.kv_cache.plain_cache import PlainCache, PlainTable
from tests.kv_cache.tiny_tables import namespace

SIZE = 3  # tokens of a block: a part can grow twice, and few tokens make a chain
MAX_ROWS = 5
Ends = tuple[int, int]  # rows run up to the first, and are accepted up to the second


@dataclass(eq=False)
class Branch:
    table: BlockTable
    plain: PlainTable
    salt: str
    tokens: Text


class BothCaches:
    def __init__(
        self, groups: Sequence[LayerGroup], room: int, order: EvictionOrder, max_pinned: int
    ) -> None:
        budget = room + sum(group.block_bytes for group in groups)
        self.order = order
        self.plain = plain = PlainCache(groups, SIZE, budget)
        self.kv = KVCache(
            groups, block_size=SIZE, budget=budget, max_rows=MAX_ROWS, order=order,
            num_remembered=10_000, clock=lambda: float(plain.now),
        )  # fmt: skip
        self.max_pinned = max_pinned  # bytes
        # Until an exception the plain cache says which blocks are taken; it knows one order.
        self.is_exact = isinstance(order, LeastRecentlyUsed)
        self.roots = {salt: self.kv.open(namespace(salt)) for salt in ("", "alice")}
        self.roots[PRIVATE] = self.kv.open(None)
        self.pages = NotedPages(self.kv)
        self.branches: list[Branch] = []
        self.pinned: list[tuple[Pin, list[BlockId], str]] = []

    @property
    def has_idle_memory(self) -> bool:
        return (self.kv.pool.oldest_empty, self.kv.pool.oldest_evictable) != (None, None)

    def begin(self, salt: str, tokens: Text) -> tuple[Branch, bool]:
        """A branch of these tokens; whether there is room for its first rows."""
        match = self.kv.match(self.roots[salt], tokens)
        reason = self.kv.miss_reason(self.roots[salt], tokens, match)
        assert (reason is None) == (match.num_tokens >= len(tokens) - 1)
        assert not match.is_window_limited or reason in (None, "window")
        plain = PlainTable(salt, [], 0)
        if self.is_exact:
            self._check_match(match, salt, tokens)
            plain = self.plain.begin(salt, tokens, len(tokens) // 2)
        end = min(len(tokens), match.num_tokens + MAX_ROWS)
        fits = self.kv.need(end, match) <= self.kv.room
        branch = Branch(
            self.kv.begin(self.roots[salt], match, len(tokens) // 2), plain, salt, tokens
        )
        self.branches.append(branch)
        self.read(branch, min(match.num_tokens, len(tokens) - 1))
        return branch, fits

    def fork(self, branch: Branch) -> None:
        plain = self.plain.fork(branch.plain) if self.is_exact else branch.plain
        self.branches.append(Branch(self.kv.fork(branch.table), plain, branch.salt, branch.tokens))

    def reserve(self, branch: Branch, end: int) -> bool:
        done = self.kv.reserve(branch.table, end)
        if self.is_exact:
            assert done == self.plain.reserve(branch.plain, end)
        if done and end > branch.table.num_stored:
            held = self.kv.bytes_held([branch.table])
            assert held <= self.kv.at_most(max(end, len(branch.table.blocks[0]) * SIZE))
        return done

    def run(self, ends: dict[Branch, Ends]) -> None:
        self.transfer()
        self.plain.now += 1
        for branch, (end, _) in ends.items():
            self.pages.write(branch.table, branch.tokens, end)
        for branch, (end, accepted) in ends.items():
            for row in range(min(branch.table.num_stored, end - 1), end):
                self.read(branch, row)
            self.kv.commit(branch.table, branch.tokens, accepted)
            if self.is_exact:
                self.plain.commit(branch.plain, branch.tokens, accepted)
            if accepted < end:
                branch.tokens = (*branch.tokens[:accepted], 1 - branch.tokens[accepted])
            assert self.kv.can_run(branch.table, branch.table.num_stored)

    def transfer(self) -> None:
        self.make_transfers()
        self.kv.commit_transfers()
        if self.is_exact:
            self.plain.released.clear()
            for table in tuple(self.plain.copying):
                self.plain.end_copies(table)

    def make_transfers(self) -> None:
        transfers = self.kv.transfers()
        assert [t.kind for t in transfers] == sorted((t.kind for t in transfers), reverse=True)
        if self.is_exact:
            copies = [copy for table in self.plain.copying for copy in table.copies]
            assert [((t.group, t.block), (t.group, t.to)) for t in transfers if t.to >= 0] == copies
            assert {(t.group, t.block) for t in transfers if t.to < 0} == self.plain.released
        self.pages.transfer(transfers)

    def read(self, branch: Branch, row: int) -> None:
        self.pages.read(branch.table, branch.tokens, row)

    def truncate(self, branch: Branch, end: int) -> None:
        self.kv.truncate(branch.table, end)
        if self.is_exact:
            self.plain.truncate(branch.plain, end)
        branch.tokens = (*branch.tokens[:end], 1)
        self.read(branch, end)

    def end(self, branch: Branch, is_named: bool) -> None:
        self.plain.now += 1
        self.branches.remove(branch)
        tokens = branch.tokens if is_named else None
        self.kv.free(branch.table, tokens)
        if self.is_exact:
            self.plain.finish(branch.plain, tokens)

    def close(self) -> None:
        """Nobody uses the private root any more."""
        root = self.roots[PRIVATE]
        paths = [_path(node, PRIVATE) for node in self.kv.index.leaves_first(root)]
        self.kv.close(root)
        assert not root.children
        if self.is_exact:
            self.plain.close(PRIVATE, paths)
        self.roots[PRIVATE] = self.kv.open(None)

    def pin(self, salt: str, tokens: Text) -> None:
        """The whole blocks that a table would have which begins with them, all or none."""
        end = len(tokens) // SIZE * SIZE
        for _ in range(2):
            match = self.kv.match(self.roots[salt], tokens[:end])
            end = len(match.nodes) * SIZE
        columns = zip(*match.blocks(self.kv.layout), strict=True)
        blocks = [b for column in columns for b in column if b is not None]
        pinned = {*blocks, *(b for _, each, _ in self.pinned for b in each)}
        fits = self._bytes(pinned) <= self.max_pinned
        pin = self.kv.pins.add(self.roots[salt], tokens, self.max_pinned)
        assert pin.num_tokens == (end if fits else 0)
        assert (pin.why_not is None) == (pin.id > 0) == (pin.num_tokens > 0)
        if pin.id:
            self.pinned.append((pin, blocks, salt))
            for block in blocks if self.is_exact else []:
                self.plain.hold(self._block(block))

    def unpin(self, at: int) -> None:
        pin, blocks, _ = self.pinned.pop(at)
        assert self.kv.pins.remove(pin)
        assert not self.kv.pins.remove(pin)
        for block in blocks[::-1] if self.is_exact else []:
            self.plain.free(self._block(block))

    def clear(self, salt: str | None) -> None:
        """Nobody may find any more what no table holds; pins count no more."""
        self.plain.now += 1
        salts = [each for each in ("", "alice") if salt in (None, each)]
        for each in salts:
            for at in [i for i, pin in enumerate(self.pinned) if pin[2] == each]:
                for block in self.pinned[at][1][::-1] if self.is_exact else []:
                    self.plain.free(self._block(block))
        gone = [pin for pin, _, each in self.pinned if each in salts]
        self.pinned = [pin for pin in self.pinned if pin[2] not in salts]
        nodes = {s: self.kv.index.leaves_first(self.roots[s]) for s in salts}
        paths = [_path(node, s) for s in salts for node in nodes[s]]
        count = self.kv.clear(salt)
        assert not any(self.kv.pins.remove(pin) for pin in gone)
        assert self.branches or not any(self.roots[s].children for s in salts)
        if self.is_exact:
            assert count == self.plain.clear(paths)

    def reclaim(self, empty_for: int, cached_for: int) -> None:
        releases, _ = self.kv.reclaim(empty_for=empty_for, cached_for=cached_for)
        self.pages.transfer(releases)
        if self.is_exact:
            idle = self.plain.reclaim(empty_for, cached_for)
            assert [(t.group, t.block) for t in releases] == idle

    def check(self) -> None:
        self.kv.check_integrity([branch.table for branch in self.branches])
        kv, plain, pool = self.kv, self.plain, self.kv.pool
        every = [BlockId(b) for b in range(pool.num_blocks)]
        pins = Counter(b for _, blocks, _ in self.pinned for b in blocks)
        assert kv.pins.num_bytes == self._bytes(pins) <= self.max_pinned
        assert all(pool.is_cached(b) for b in pins)  # it can be found as long as it is pinned
        assert kv.pins.holds == pins
        if not self.is_exact:
            return
        assert kv.room == plain.room
        assert self._numbers(list(self.order)) == plain.order
        assert all(pool.num_holders(b) == plain.holders[self._block(b)] for b in every)
        found = {b for blocks in plain.paths.values() for b in blocks if b is not None}
        assert {self._block(b) for b in every if pool.is_cached(b)} == found
        for branch in self.branches:
            columns = list(zip(*branch.table.blocks, strict=True))
            assert [self._numbers(column) for column in columns] == branch.plain.columns
            assert branch.table.num_stored == branch.plain.stored
        counts = kv.counts()
        assert counts.blocks_used == len(+plain.holders)
        assert counts.blocks_cached == len(plain.evictable)
        assert counts.blocks_evicted == plain.num_evicted
        memory = counts.bytes_used, counts.bytes_cached, counts.bytes_empty
        states = list(+plain.holders), plain.evictable, plain.warm
        assert memory == tuple(map(plain.bytes_of, states))

    def _check_match(self, match: Match, salt: str, tokens: Text) -> None:
        length, paths, known_tokens = self.plain.match(salt, tokens)
        assert (match.num_tokens, match.known) == (length, known_tokens)
        nodes = [*match.nodes, *([match.partial] if match.partial else [])]
        known = [self.plain.paths[path] for path in paths]
        assert [self._numbers(node.blocks) for node in nodes] == known
        node = match.nodes[-1] if match.nodes else self.roots[salt]
        ends = [node.end + n for n in range(1, SIZE + 1)]
        gone = [(salt, tokens[:end]) in self.plain.evicted for end in ends]
        if self.kv.index.was_evicted(node, tokens[node.end :]):
            assert any(gone)
        else:
            assert len(tokens) < ends[-1] or not gone[-1]

    def _bytes(self, blocks: Iterable[BlockId]) -> int:
        sizes = [group.block_bytes for group in self.kv.groups]
        return sum(sizes[self.kv.pool.group(block)] for block in blocks)

    def _block(self, block: BlockId) -> Block:
        return self.kv.pool.number(block)

    def _numbers(self, blocks: Sequence[BlockId | None]) -> list[Block | None]:
        return [None if block is None else self._block(block) for block in blocks]


def _path(node: Node, salt: str) -> Path:
    tokens: Text = ()
    while node.parent is not None:
        tokens, node = node.tokens + tokens, node.parent
    return salt, tokens
