"""PlainCache: what a KVCache says, and which blocks its tables have, told with dicts and lists."""

from __future__ import annotations

from collections.abc import Sequence

from octavo.kv_cache.groups import LayerGroup
from tests.kv_cache.plain_blocks import PRIVATE, Block, Path, PlainBlocks
from tests.kv_cache.tiny_tables import num_shared


class PlainTable:
    def __init__(self, salt: str, columns: list[list[Block | None]], stored: int) -> None:
        self.salt = salt
        self.columns = columns  # for each place the blocks of all groups
        self.stored = stored
        self.copies: list[tuple[Block, Block]] = []
        self.named = stored  # whole blocks up to here have a path
        self.own: list[Path] = []
        self.ends: set[int] = set()  # rows from which others may go on


class PlainCache(PlainBlocks):
    def __init__(self, groups: Sequence[LayerGroup], size: int, budget: int) -> None:
        super().__init__(groups, size, budget)
        self.copying: list[PlainTable] = []  # that have copies to be made, as these were asked for

    def match(self, salt: str, tokens: tuple[int, ...]) -> tuple[int, list[Path], int]:
        """Tokens that can be used, the paths that hold them, and how many are known."""
        paths: list[Path] = []
        while (salt, tokens[: (len(paths) + 1) * self.size]) in self.paths:
            if (len(paths) + 1) * self.size > len(tokens):
                break
            paths.append((salt, tokens[: (len(paths) + 1) * self.size]))
        end = len(paths) * self.size
        below = sorted(p[1] for p in self.children((salt, tokens[:end])))
        place = sum(path < tokens for path in below)  # of equals one of the two beside it is used
        nearest = below[max(0, place - 1) : place + 1]
        known, best = max(((num_shared(p, tokens), p) for p in nearest), default=(end, ()))
        if known > end:
            paths.append((salt, best))
        for length in range(known, -1, -1):
            used = paths[: -(-length // self.size)]
            row = min(length, len(tokens) - 1)
            if not any(
                block is None and self.is_read(group, at, length, row)
                for at, path in enumerate(used)
                for group, block in enumerate(self.paths[path])
            ):
                return length, used, known
        raise AssertionError("no prefix is always found")

    def is_read(self, group: int, at: int, length: int, row: int) -> bool:
        """Tell whether a row reads the block, or goes on in it."""
        is_filling = length < (at + 1) * self.size
        return self.has(group, at) and (self.needs(group, at, row) or is_filling)

    def begin(self, salt: str, tokens: tuple[int, ...], num_prompt: int) -> PlainTable:
        length, paths, _ = self.match(salt, tokens)
        row = min(length, len(tokens) - 1)
        columns = [
            [
                b if self.is_read(g, at, length, row) else None
                for g, b in enumerate(self.paths[path])
            ]
            for at, path in enumerate(paths)
        ]
        table = PlainTable(salt, columns, length)
        table.named = length - length % self.size
        table.ends = {end for end in (row, num_prompt - 1) if end > 0}
        for block in present(columns):
            self.hold(block)
        return table

    def fork(self, table: PlainTable) -> PlainTable:
        count = -(-table.stored // self.size)
        copy = PlainTable(table.salt, [list(c) for c in table.columns[:count]], table.stored)
        copy.named, copy.ends = table.named, table.ends
        for block in present(copy.columns):
            self.hold(block)
        return copy

    def is_shared(self, block: Block, slot: int) -> bool:
        path = self.path_of(block)
        named = 0 if path is None else len(path[1]) - (len(path[1]) - 1) // self.size * self.size
        return self.holders[block] - self.waiting[block] > 1 or named > slot

    def reserve(self, table: PlainTable, end: int) -> bool:
        if end <= table.stored:
            return True
        at, slot = divmod(table.stored, self.size)
        places = range(len(table.columns), -(-end // self.size))
        more = [sum(self.has(g, place) for place in places) for g in self.all]
        filling = present(table.columns[at : at + 1])
        shared = any(self.is_shared(b, slot) for b in filling)
        both = [n + (shared and self.has(g, at)) for g, n in enumerate(more)]
        if self.bytes_of_each(both) > self.room:
            if not shared or any(self.holders[b] > 1 for b in filling):
                return False
            if self.bytes_of_each(more) > self.room:
                return False
            taken = [[self.take(g) for _ in range(more[g])] for g in self.all]
            for block in filling:
                if self.path_of(block):
                    self.forget(block)
        else:
            taken = [[self.take(g) for _ in range(both[g])] for g in self.all]
            if shared:
                for group, source in enumerate(table.columns[at]):
                    if source is None:
                        continue
                    copy = table.columns[at][group] = taken[group].pop()
                    self.waiting[source] += 1
                    table.copies.append((source, copy))
                self.copying.append(table)
        for place in places:
            column = [taken[g].pop(0) if self.has(g, place) else None for g in self.all]
            table.columns.append(column)
        return True

    def bytes_of_each(self, counts: Sequence[int]) -> int:
        """Bytes of so many blocks of each group."""
        return sum(n * group.block_bytes for n, group in zip(counts, self.groups, strict=True))

    def end_copies(self, table: PlainTable) -> None:
        for source, _ in table.copies:
            self.waiting[source] -= 1
        for source, _ in table.copies[::-1]:
            self.free(source)
        table.copies.clear()
        if table in self.copying:
            self.copying.remove(table)

    def commit(self, table: PlainTable, tokens: tuple[int, ...], accepted: int) -> None:
        table.stored = max(table.stored, accepted)
        while table.named + self.size <= table.stored:
            self.name(table, tokens[: table.named + self.size])
            table.named += self.size
        kept: list[Block] = []
        spare: list[Block] = []
        for group in self.all:
            for at in range(table.stored // self.size):
                block = table.columns[at][group]
                if block is not None and not self.needs(group, at, accepted):
                    seen = [end for end in table.ends if at * self.size < end]
                    at_end = any(self.needs(group, at, end) for end in seen)
                    (kept if at_end else spare).append(block)
                    table.columns[at][group] = None
        for block in kept[::-1]:
            self.free(block)
        for block in spare[::-1]:
            self.free(block, spare=True)
        for block in spare[::-1] if table.salt == PRIVATE else []:
            if block in self.evictable and block not in self.kept:
                self.forget(block)
                self.lose(block)

    def name(self, table: PlainTable, tokens: tuple[int, ...]) -> None:
        """The blocks that hold the last of these tokens are found, or those of the same path."""
        at = (len(tokens) - 1) // self.size
        path, mine = (table.salt, tokens), table.columns[at]
        for end in range(self.size, len(tokens), self.size):  # all let go and evicted
            self.paths.setdefault((table.salt, tokens[:end]), [None for _ in self.all])
        known = self.paths.get(path)
        is_new = known is None
        if known is None:
            shorter = {p for p in map(self.path_of, [b for b in mine if b]) if p}
            known = self.paths.pop(shorter.pop()) if shorter else [None for _ in self.all]
            assert not shorter
            self.paths[path] = known
        for group, block in enumerate(mine):
            if block is not None and known[group] is None:
                other = self.path_of(block)
                if other is not None:
                    self.paths[other][group] = None
                known[group] = block
                is_new = True
        for group, block in enumerate(mine):
            theirs = known[group]
            if block is not None and block != theirs:
                assert theirs is not None
                self.hold(theirs)
                is_new = False
                mine[group] = theirs
                self.free(block)
        self.prune()
        if is_new:
            table.own.append(path)

    def finish(self, table: PlainTable, tokens: tuple[int, ...] | None) -> None:
        if tokens is not None and not table.copies and table.stored > table.named:
            tail = tokens[: table.stored]
            above = (table.salt, tokens[: table.named])
            if not any(p[1][: len(tail)] == tail for p in self.children(above)):
                self.name(table, tail)
        self.end_copies(table)
        self.cut(table, 0)

    def truncate(self, table: PlainTable, num_tokens: int) -> None:
        while table.own and len(table.own[-1][1]) > num_tokens:
            path = table.own.pop()
            blocks = self.paths.get(path)
            column = table.columns[(len(path[1]) - 1) // self.size]
            if blocks is None or self.children(path):
                continue
            if any(b and self.holders[b] != (b == c) for b, c in zip(blocks, column, strict=True)):
                continue
            del self.paths[path]
            for block in blocks:
                if block is not None:
                    self.lose(block)
            self.evicted |= self.prune()
        table.stored = num_tokens
        table.named = min(table.named, num_tokens - num_tokens % self.size)
        self.cut(table, -(-num_tokens // self.size))

    def cut(self, table: PlainTable, count: int) -> None:
        for column in table.columns[count:][::-1]:
            for block in column:
                if block is not None:
                    self.free(block)
        del table.columns[count:]


def present(columns: Sequence[Sequence[Block | None]]) -> list[Block]:
    return [block for column in columns for block in column if block is not None]
