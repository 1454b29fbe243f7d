"""PlainBlocks: which blocks are taken, found, evicted and given back, told with dicts and lists.

A block is (group, number); a path is the root and every token from there to the end of a block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from octavo.kv_cache.groups import LayerGroup

Block = tuple[int, int]
Path = tuple[str, tuple[int, ...]]
PRIVATE = "nobody else's"  # the root of one request alone


class PlainBlocks:
    def __init__(self, groups: Sequence[LayerGroup], size: int, budget: int) -> None:
        self.groups, self.size, self.budget = groups, size, budget
        self.holders: Counter[Block] = Counter()
        self.paths: dict[Path, list[Block | None]] = {}
        self.evictable: list[Block] = []  # findable, held by nobody; the first freed first
        self.kept: set[Block] = set()  # freed by a holder where others may go on
        self.warm: list[Block] = []  # empty, with memory; the oldest first
        self.cold = {g: list(range(budget // groups[g].block_bytes))[::-1] for g in self.all}
        self.waiting: Counter[Block] = Counter()  # holders that only wait to copy
        self.released: set[Block] = set()
        self.evicted: set[Path] = set()  # ever
        self.num_evicted = 0
        self.now = 0
        self.since: dict[Block, int] = {}  # when it was last freed, or lost

    @property
    def all(self) -> range:
        return range(len(self.groups))

    def keeps_all(self, group: int) -> bool:
        return self.groups[group].keeps_all

    def needs(self, group: int, at: int, row: int) -> bool:
        return self.groups[group].keeps.needs(at * self.size, (at + 1) * self.size, row)

    def has(self, group: int, at: int) -> bool:
        """Tell whether the group ever has that block of a sequence."""
        return self.needs(group, at, 0)

    def bytes_of(self, blocks: Sequence[Block]) -> int:
        return sum(self.groups[g].block_bytes for g, _ in blocks)

    @property
    def room(self) -> int:
        return self.budget - self.bytes_of(list(+self.holders))

    def path_of(self, block: Block) -> Path | None:
        return next((path for path, blocks in self.paths.items() if block in blocks), None)

    def hold(self, block: Block) -> None:
        if not self.holders[block]:
            self.evictable.remove(block)
        self.holders[block] += 1

    @property
    def order(self) -> list[Block]:
        """Those that are evicted when no others are left."""
        return [block for block in self.evictable if block in self.kept]

    def free(self, block: Block, *, spare: bool = False) -> None:
        self.holders[block] -= 1
        if not spare:
            self.kept.add(block)
        if not self.holders[block]:
            (self.evictable if self.path_of(block) else self.warm).append(block)
            self.since[block] = self.now

    def lose(self, block: Block) -> None:
        """Note that the block is found no more."""
        if block in self.evictable:
            self.evictable.remove(block)
            self.warm.append(block)
            self.since[block] = self.now

    def take(self, group: int) -> Block:
        while True:
            mine = [b for b in self.warm if b[0] == group]
            memory = [*+self.holders, *self.evictable, *self.warm]
            fits = self.bytes_of(memory) + self.groups[group].block_bytes <= self.budget
            if mine:
                block = mine[-1]
                self.warm.remove(block)
            elif fits and self.cold[group]:
                block = (group, self.cold[group].pop())
                self.released.discard(block)
            elif self.warm:
                other = min(self.warm, key=lambda b: b[0])
                self.warm.remove(other)
                self.release(other)
                continue
            else:
                spare = [b for b in self.evictable if b not in self.kept]
                block = (spare or self.evictable)[0]
                self.evictable.remove(block)
                self.num_evicted += 1
                self.forget(block)
                if block[0] != group:
                    self.release(block)
                    continue
            self.holders[block] = 1
            self.kept.discard(block)
            return block

    def release(self, block: Block) -> None:
        self.cold[block[0]].append(block[1])
        self.released.add(block)

    def forget(self, block: Block) -> None:
        path = self.path_of(block)
        assert path is not None
        if self.keeps_all(block[0]):
            salt, tokens = path
            below = [p for p in self.paths if p[0] == salt and p[1][: len(tokens)] == tokens]
            below = [path] if len(tokens) % self.size else below
            for gone in sorted(below, key=lambda p: -len(p[1])):
                self.evicted.add(gone)
                for other in self.paths.pop(gone):
                    if other is not None and other != block:
                        self.lose(other)
        else:
            self.paths[path][block[0]] = None
            self.evicted |= self.prune()

    def close(self, salt: str, order: Sequence[Path]) -> None:
        """Nothing of a salt is found or known any more; children go first, in any order."""
        assert sorted(order) == sorted(path for path in self.paths if path[0] == salt)
        for path in order:
            assert not self.children(path)
            for block in self.paths.pop(path):
                if block is not None:
                    self.lose(block)
        self.evicted = {path for path in self.evicted if path[0] != salt}

    def clear(self, order: Sequence[Path]) -> int:
        """Of these, children first, nothing is found that nobody holds; the number of blocks."""
        count = 0
        for path in order:
            blocks = [block for block in self.paths.get(path, []) if block is not None]
            is_held = any(self.holders[block] for block in blocks)
            if path in self.paths and not self.children(path) and not is_held:
                del self.paths[path]
                for block in blocks:
                    self.lose(block)
                count += len(blocks)
                self.evicted |= self.prune()
        return count

    def reclaim(self, empty_for: int, cached_for: int) -> list[Block]:
        """The memory goes back of all blocks that were not used for so long."""
        evicted = []
        while self.evictable and self.since[self.evictable[0]] + cached_for <= self.now:
            evicted.append(self.evictable.pop(0))
            self.num_evicted += 1
            self.forget(evicted[-1])
        idle = [b for b in self.warm if self.since[b] + empty_for <= self.now]
        self.warm = [b for b in self.warm if b not in idle]
        gone = evicted + sorted(idle, key=lambda b: b[0])
        for group, number in gone:
            self.cold[group].append(number)
        return gone

    def prune(self) -> set[Path]:
        """A path of which nothing is left goes."""
        bare = {path for path, blocks in self.paths.items() if set(blocks) == {None}}
        gone = {path for path in bare if not self.children(path)}
        for path in gone:
            del self.paths[path]
        return gone | self.prune() if gone else gone

    def children(self, path: Path) -> list[Path]:
        salt, tokens = path
        end = len(tokens)
        if end % self.size:
            return []  # a part is a leaf
        return [
            p
            for p in self.paths
            if p[0] == salt and p[1][:end] == tokens and end < len(p[1]) <= end + self.size
        ]
