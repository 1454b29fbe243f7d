"""Pool and index driven at random, against a model of plain dicts and lists."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from octavo.kv_cache.block_pool import BlockPool
from octavo.kv_cache.cache import Match
from octavo.kv_cache.eviction import LeastRecentlyUsed
from octavo.kv_cache.groups import BlockId
from octavo.kv_cache.prefix_index import Node, PrefixIndex
from tests.kv_cache.tiny_cache import namespace, num_shared, one_group

SIZE = 3  # tokens of a block: a part can grow twice, and few tokens make a chain
Text = tuple[int, ...]
Path = tuple[str, Text]  # a salt, and every token from the root to the end of a block


class Plain:
    """What a pool and an index say, told with a dict, a list and a counter."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.holders: Counter[BlockId] = Counter()
        self.pins: Counter[BlockId] = Counter()
        self.paths: dict[Path, BlockId] = {}
        self.free: dict[BlockId, int] = {}  # findable, held by nobody: since when; first out first
        self.evicted: set[Path] = set()

    def hold(self, blocks: list[BlockId]) -> None:
        self.holders.update(blocks)
        for block in blocks:
            self.free.pop(block, None)

    def let_go(self, blocks: list[BlockId], now: int) -> None:
        for block in blocks:
            self.holders[block] -= 1
            if not self.holders[block] and block in self.paths.values():
                self.free[block] = now

    def path_of(self, block: BlockId) -> Path:
        return next(path for path, b in self.paths.items() if b == block)

    def uncache(self, block: BlockId) -> None:
        del self.paths[self.path_of(block)]
        self.free.pop(block, None)

    def evict(self, blocks: list[BlockId]) -> None:
        for block in blocks:
            self.evicted.add(self.path_of(block))
            self.uncache(block)

    def num_empty(self) -> int:
        return self.num_blocks - len(+self.holders) - len(self.free)

    def longest(self, salt: str, tokens: Text) -> int:
        return max((num_shared(p, tokens) for s, p in self.paths if s == salt), default=0)


class Table:
    """A sequence: its tokens, and the blocks it holds."""

    def __init__(self, salt: str, tokens: Text, blocks: list[BlockId]) -> None:
        self.salt, self.tokens, self.blocks = salt, tokens, blocks


answers = st.lists(st.integers(0, 1), min_size=1, max_size=5).map(tuple)
stems = st.sampled_from([(0,) * 9, (0,) * 6, (0,) * 3 + (1,) * 3, (1,) * 3, ()])
prompts = st.tuples(stems, answers).map(lambda parts: parts[0] + parts[1])
salts = st.sampled_from(["", "alice"])
picks = st.integers(0, 99)


class PoolAndIndex(RuleBasedStateMachine):
    @initialize(num_blocks=st.integers(2, 12), max_pinned=st.integers(0, 4))
    def begin(self, num_blocks: int, max_pinned: int) -> None:
        self.now = 0
        self.max_pinned = max_pinned
        self.index = PrefixIndex(one_group(SIZE), num_remembered=10_000)
        self.order = LeastRecentlyUsed()
        self.pool = BlockPool(
            [1],
            num_blocks,
            order=self.order,
            forget=self.index.forget,
            max_pinned=max_pinned,
            clock=lambda: self.now,
        )
        self.plain = Plain(num_blocks)
        self.tables: list[Table] = []
        self.pinned: list[list[BlockId]] = []
        self.with_memory: set[BlockId] = set()

    def allocate(self, count: int) -> list[BlockId] | None:
        plain = self.plain
        empty, free = plain.num_empty(), list(plain.free)
        groups = self.pool.allocate(count)
        if groups is None:
            assert count > empty + len(free)
            return None
        (taken,) = groups
        evicted = free[: max(0, count - empty)]
        assert taken[count - len(evicted) :] == evicted
        assert not any(plain.holders[b] for b in taken)
        plain.evict(evicted)
        plain.hold(taken)
        self.with_memory |= set(taken)
        return taken

    def free(self, blocks: list[BlockId]) -> None:
        self.now += 1
        self.pool.free(reversed(blocks))
        self.plain.let_go(blocks[::-1], self.now)

    @rule(salt=salts, tokens=prompts, cut=st.integers(0, 2))
    def submit(self, salt: str, tokens: Text, cut: int) -> None:
        root, limit = self.index.root(namespace(salt)), max(0, len(tokens) - cut)
        match = Match(*self.index.match(root, tokens[:limit]))
        assert match.num_tokens == self.plain.longest(salt, tokens[:limit])
        assert match.partial_tokens < SIZE
        paths = self.plain.paths
        blocks = [paths[salt, tokens[:n]] for n in range(SIZE, match.num_tokens + 1, SIZE)]
        whole = len(match.nodes)
        assert [n.blocks[0] for n in match.nodes] == blocks[:whole]
        if match.partial is not None:
            (found,) = match.partial.blocks
            assert found is not None
            path = self.plain.path_of(found)
            assert path[0] == salt
            assert path[1][: match.num_tokens] == tokens[: match.num_tokens]
        node, following = (list(match.nodes) or [root])[-1], tokens[whole * SIZE :]
        gone = [(salt, tokens[: node.end + n]) in self.plain.evicted for n in range(1, SIZE + 1)]
        if self.index.was_evicted(node, following):
            assert any(gone)
        else:
            assert len(following) < SIZE or not gone[-1]
        self.pool.hold(blocks[:whole])
        self.plain.hold(blocks[:whole])
        taken = self.allocate(-(-len(tokens) // SIZE) - whole)
        if taken is None:
            self.free(blocks[:whole])
        else:
            self.tables.append(Table(salt, tokens, blocks[:whole] + taken))

    @precondition(lambda self: self.tables)
    @rule(pick=picks, part=st.booleans())
    def commit(self, pick: int, part: bool) -> None:
        self.register(self.tables[pick % len(self.tables)], part)

    def register(self, table: Table, part: bool) -> None:
        """Name the blocks of a table, the last one too if `part`; swap those known already."""
        node: Node = self.index.root(namespace(table.salt))
        end = len(table.tokens) if part else len(table.tokens) // SIZE * SIZE
        for i, begin in enumerate(range(0, end, SIZE)):
            tokens, block = table.tokens[begin : begin + SIZE], table.blocks[i]
            path = (table.salt, table.tokens[: begin + SIZE])
            parent, node = node, self.index.register(node, tokens, [block])
            (known,) = node.blocks
            assert known is not None
            if path in self.plain.paths:
                assert known == self.plain.paths[path]
            elif self.pool.is_cached(block):  # named by fewer tokens before
                del self.plain.paths[self.plain.path_of(block)]
            else:
                self.pool.cache(block, parent.blocks[0], 1.0)
            self.plain.paths[path] = known
            if known != block:
                self.pool.hold([known])
                self.plain.hold([known])
                table.blocks[i] = known
                self.free([block])

    @precondition(lambda self: self.tables)
    @rule(pick=picks, more=answers)
    def extend(self, pick: int, more: Text) -> None:
        """Tokens of an answer; where others may read the last block, it is replaced by a copy."""
        table = self.tables[pick % len(self.tables)]
        copied = [b for b in table.blocks[len(table.tokens) // SIZE :] if self.plain.holders[b] > 1]
        tokens = table.tokens + more
        taken = self.allocate(-(-len(tokens) // SIZE) - len(table.blocks) + len(copied))
        if taken is not None:
            table.tokens = tokens
            table.blocks = table.blocks[: len(table.blocks) - len(copied)] + taken
            self.free(copied)

    @precondition(lambda self: self.tables)
    @rule(pick=picks)
    def fork(self, pick: int) -> None:
        """Whole blocks are named first: if they were shared without a name, one of the tables could
        swap a parent for a known block, and the other would hold the child without it."""
        table = self.tables[pick % len(self.tables)]
        self.register(table, False)
        self.pool.hold(table.blocks)
        self.plain.hold(table.blocks)
        self.tables.append(Table(table.salt, table.tokens, list(table.blocks)))

    @precondition(lambda self: self.tables)
    @rule(pick=picks, named=st.sampled_from(["nothing", "whole", "all"]))
    def finish(self, pick: int, named: str) -> None:
        """End as a request does: its blocks are named first, at most the last one is not."""
        if named != "nothing":
            self.register(self.tables[pick % len(self.tables)], named == "all")
        self.free(self.tables.pop(pick % len(self.tables)).blocks)

    @precondition(lambda self: self.tables)
    @rule(pick=picks)
    def pin(self, pick: int) -> None:
        """Whole blocks, named first for the same reason."""
        table = self.tables[pick % len(self.tables)]
        self.register(table, False)
        blocks = table.blocks[: len(table.tokens) // SIZE]
        fits = len((+self.plain.pins).keys() | set(blocks)) <= self.max_pinned
        assert self.pool.pin(blocks) == fits
        if fits:
            self.pinned.append(blocks)
            self.plain.pins.update(blocks)
            self.plain.hold(blocks)

    @precondition(lambda self: self.pinned)
    @rule(pick=picks)
    def unpin(self, pick: int) -> None:
        blocks = self.pinned.pop(pick % len(self.pinned))
        self.pool.unpin(blocks[::-1])
        self.plain.pins.subtract(blocks)
        self.plain.let_go(blocks[::-1], self.now)

    @precondition(lambda self: len(self.plain.paths) > 4)
    @rule(pick=picks)
    def drop_a_leaf(self, pick: int) -> None:
        salt = sorted(self.plain.paths)[pick % len(self.plain.paths)][0]
        node = self.index.leaves_first(self.index.root(namespace(salt)))[0]
        (block,) = self.index.remove(node)
        self.pool.uncache(block)
        self.plain.uncache(block)

    @precondition(lambda self: self.plain.free)
    @rule(idle=st.integers(0, 20))
    def reclaim(self, idle: int) -> None:
        evicted = [b for b, since in self.plain.free.items() if since <= self.now - idle]
        self.plain.evict(evicted)
        free = self.pool.reclaim(empty_since=self.now, cached_since=self.now - idle)
        assert free[: len(evicted)] == evicted
        empty = self.with_memory - (+self.plain.holders).keys() - self.plain.free.keys()
        assert len(free) == len(set(free))
        assert set(free) == empty
        self.with_memory -= empty

    @invariant()
    def agree(self) -> None:
        pool, plain = self.pool, self.plain
        pool.check_integrity()
        self.index.check_integrity()
        self.index.check_agreement(pool)
        blocks = [BlockId(b) for b in range(plain.num_blocks)]
        assert list(self.order) == list(plain.free)
        assert [pool.num_holders(b) for b in blocks] == [plain.holders[b] for b in blocks]
        assert [pool.num_pins(b) for b in blocks] == [plain.pins[b] for b in blocks]
        assert {b for b in blocks if pool.is_cached(b)} == set(plain.paths.values())
        assert pool.num_empty == plain.num_empty()
        assert pool.num_held == len(+plain.holders)


TestPoolAndIndex = PoolAndIndex.TestCase
TestPoolAndIndex.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
