"""KVCache driven at random, over one to three layer groups: against a model of dicts and lists, and
against the pages themselves. Every slot of a page notes the tokens whose K and V were written to
it; a row that would read anything else fails.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from octavo.kv_cache.cache import BlockTable, KVCache
from octavo.kv_cache.cost_aware import CostAware
from octavo.kv_cache.eviction import EvictionOrder, LeastRecentlyUsed
from octavo.kv_cache.groups import BlockId, KeepAll, KeepLast, LayerGroup
from tests.engine.interrupt import call_raising
from tests.kv_cache.plain_blocks import Block
from tests.kv_cache.plain_cache import PlainCache, PlainTable
from tests.kv_cache.tiny_cache import namespace

SIZE = 3  # tokens of a block
MAX_ROWS = 5
Text = tuple[int, ...]


@dataclass(frozen=True)
class KeepEnds:
    """The first block and the last `window` positions."""

    window: int

    def needs(self, begin: int, end: int, row: int) -> bool:
        return begin < SIZE or end > row - self.window + 1


@dataclass(eq=False)
class Branch:
    table: BlockTable
    plain: PlainTable
    salt: str
    tokens: Text


keeps = st.one_of(
    st.just(KeepAll()),
    st.builds(KeepLast, st.integers(1, 8)),
    st.builds(KeepEnds, st.integers(1, 6)),
)
layer_groups = st.lists(st.builds(LayerGroup, st.integers(1, 3), keeps), min_size=1, max_size=3)
answers = st.lists(st.integers(0, 1), min_size=1, max_size=5).map(tuple)
stems = st.sampled_from([(0,) * 9, (0,) * 6, (0,) * 3 + (1,) * 3, (1,) * 3, ()])
prompts = st.tuples(stems, answers).map(lambda parts: parts[0] + parts[1])
salts = st.sampled_from(["", "alice"])
picks = st.integers(0, 99)


class Machine(RuleBasedStateMachine):
    @initialize(
        groups=layer_groups,
        room=st.integers(5, 40),
        order=st.sampled_from([LeastRecentlyUsed, LeastRecentlyUsed, CostAware]),
        may_break=st.booleans(),
    )
    def start(
        self, groups: list[LayerGroup], room: int, order: type[EvictionOrder], may_break: bool
    ) -> None:
        self.groups, self.order = groups, order()
        self.budget = room + sum(group.block_bytes for group in groups)
        self.kv = KVCache(
            groups, block_size=SIZE, budget=self.budget, max_rows=MAX_ROWS, order=self.order,
            clock=lambda: 0.0,
        )  # fmt: skip
        self.plain = PlainCache(groups, SIZE, self.budget)
        # Until an exception the plain cache says which blocks are taken; it knows one order.
        self.is_exact = order is LeastRecentlyUsed
        self.may_break = may_break
        self.roots = {salt: self.kv.open(namespace(salt)) for salt in ("", "alice")}
        self.pages: dict[Block, list[Text | None]] = {}
        self.branches: list[Branch] = []

    def block(self, block: BlockId) -> Block:
        return self.kv.pool.number(block)

    @precondition(lambda self: len(self.branches) < 6)
    @rule(salt=salts, tokens=prompts)
    def submit(self, salt: str, tokens: Text) -> None:
        match = self.kv.match(self.roots[salt], tokens)
        reason = self.kv.miss_reason(self.roots[salt], tokens, match)
        assert (reason is None) == (match.num_tokens >= len(tokens) - 1)
        assert not match.is_window_limited or reason in (None, "window")
        if self.is_exact:
            length, paths, is_limited = self.plain.match(salt, tokens)
            assert (match.num_tokens, match.is_window_limited) == (length, is_limited)
            nodes = [*match.nodes, *([match.partial] if match.partial else [])]
            found = [[b if b is None else self.block(b) for b in node.blocks] for node in nodes]
            assert found == [self.plain.paths[path] for path in paths]
        end = min(len(tokens), match.num_tokens + MAX_ROWS)
        fits = self.kv.need(end, match) <= self.kv.room
        table = self.kv.begin(self.roots[salt], match)
        branch = Branch(
            table,
            self.plain.begin(salt, tokens) if self.is_exact else PlainTable(salt, [], 0),
            salt,
            tokens,
        )
        self.branches.append(branch)
        self.read(branch, min(match.num_tokens, len(tokens) - 1))
        if fits:
            assert self.reserve(branch, end)

    @precondition(lambda self: self.branches)
    @rule(
        chosen=st.lists(st.tuples(picks, st.integers(1, MAX_ROWS), st.integers(0, 4)), max_size=4)
    )
    def step(self, chosen: list[tuple[int, int, int]]) -> None:
        """Some rows of some branches run; of each the last few may be drafts that are rejected."""
        ends: dict[Branch, tuple[int, int]] = {}
        for pick, rows, rejected in chosen:
            branch = self.branches[pick % len(self.branches)]
            end = min(branch.table.num_stored + rows, len(branch.tokens))
            can_run = self.kv.can_run(branch.table, min(branch.table.num_stored, end - 1))
            if can_run and branch not in ends and self.reserve(branch, end):
                ends[branch] = end, max(branch.table.num_stored, end - rejected, 1)
        self.run(ends)

    def reserve(self, branch: Branch, end: int) -> bool:
        done = self.kv.reserve(branch.table, end)
        if self.is_exact:
            assert done == self.plain.reserve(branch.plain, end)
        if done and end > branch.table.num_stored:
            held = self.kv.bytes_held([branch.table])
            assert held <= self.kv.at_most(max(end, len(branch.table.blocks[0]) * SIZE))
        return done

    def run(self, ends: dict[Branch, tuple[int, int]]) -> None:
        self.transfer()
        for branch, (end, _) in ends.items():
            for row in range(branch.table.num_stored, end):
                for page in self.pages_at(branch, row):
                    page[row % SIZE] = branch.tokens[: row + 1]
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
            for branch in self.branches:
                self.plain.end_copies(branch.plain)

    def make_transfers(self) -> None:
        transfers = self.kv.transfers()
        assert [t.kind for t in transfers] == sorted((t.kind for t in transfers), reverse=True)
        if self.is_exact:
            copies = [c for branch in self.branches for c in branch.plain.copies]
            assert [((t.group, t.block), (t.group, t.to)) for t in transfers if t.to >= 0] == copies
            assert {(t.group, t.block) for t in transfers if t.to < 0} == self.plain.released
        for t in transfers:
            if t.kind == "copy":
                self.pages[t.group, t.to] = list(self.pages[t.group, t.block])
            else:
                self.pages.pop((t.group, t.block), None)
        memory = sum(self.groups[group].block_bytes for group, _ in self.pages)
        assert memory <= self.budget

    def pages_at(self, branch: Branch, row: int) -> list[list[Text | None]]:
        numbers = [view[row // SIZE] for view in self.kv.view(branch.table)]
        return [self.pages.setdefault(block, [None] * SIZE) for block in enumerate(numbers)]

    def read(self, branch: Branch, row: int) -> None:
        """Check that what a row reads was written for these tokens."""
        for position in range(min(row + 1, branch.table.num_stored)):
            pages = self.pages_at(branch, position)
            for group, page in zip(self.groups, pages, strict=True):
                if group.keeps.needs(position, position + 1, row):
                    assert page[position % SIZE] == branch.tokens[: position + 1]

    @precondition(lambda self: self.branches)
    @rule(pick=picks, more=answers)
    def extend(self, pick: int, more: Text) -> None:
        self.branches[pick % len(self.branches)].tokens += more

    @precondition(lambda self: 0 < len(self.branches) < 6)
    @rule(pick=picks)
    def fork(self, pick: int) -> None:
        self.transfer()
        branch = self.branches[pick % len(self.branches)]
        plain = self.plain.fork(branch.plain) if self.is_exact else branch.plain
        self.branches.append(Branch(self.kv.fork(branch.table), plain, branch.salt, branch.tokens))

    @precondition(lambda self: self.branches)
    @rule(pick=picks, is_named=st.booleans())
    def finish(self, pick: int, is_named: bool) -> None:
        branch = self.branches.pop(pick % len(self.branches))
        tokens = branch.tokens if is_named else None
        self.kv.free(branch.table, tokens)
        if self.is_exact:
            self.plain.finish(branch.plain, tokens)

    @precondition(lambda self: self.branches)
    @rule(pick=picks, back=st.integers(0, 9))
    def truncate(self, pick: int, back: int) -> None:
        self.transfer()
        branch = self.branches[pick % len(self.branches)]
        end = max(0, branch.table.num_stored - back)
        if not self.kv.can_run(branch.table, end):
            return
        self.kv.truncate(branch.table, end)
        if self.is_exact:
            self.plain.truncate(branch.plain, end)
        branch.tokens = (*branch.tokens[:end], 1)
        self.read(branch, end)

    @rule(all_of_it=st.booleans())
    def reclaim(self, all_of_it: bool) -> None:
        releases, _ = self.kv.reclaim(empty_for=0.0, cached_for=0.0 if all_of_it else 1.0)
        for transfer in releases:
            self.pages.pop((transfer.group, transfer.block), None)
        if self.is_exact:
            assert [(t.group, t.block) for t in releases] == self.plain.reclaim(all_of_it)

    @precondition(lambda self: self.may_break and self.branches)
    @rule(pick=picks, line=st.integers(0, 120), kind=st.integers(0, 5), number=st.integers(0, 9))
    def break_off(self, pick: int, line: int, kind: int, number: int) -> None:
        """An exception at any line. What the tables say is so, and can be gone on from."""
        branch = self.branches[pick % len(self.branches)]
        table, tokens, kv = branch.table, branch.tokens, self.kv
        if kind == 0:
            self.branches.remove(branch)
        if kind == 3:
            self.make_transfers()
        if kind > 3:
            self.transfer()
        end = max(0, table.num_stored - number)
        calls = [
            lambda: kv.free(table, tokens),
            lambda: kv.reserve(table, min(table.num_stored + number, len(tokens))),
            lambda: kv.begin(self.roots[""], kv.match(self.roots[""], tokens)),
            kv.commit_transfers,
            lambda: kv.fork(table),
            lambda: kv.truncate(table, end) if kv.can_run(table, end) else None,
        ]
        self.is_exact = False
        lines = iter(range(line + 1))
        call_raising(calls[kind], KeyboardInterrupt(), at=lambda _: next(lines, None) == line)
        kv.recover([b.table for b in self.branches])
        for each in self.branches:
            if kv.can_run(each.table, each.table.num_stored):
                self.read(each, each.table.num_stored)

    @invariant()
    def agree(self) -> None:
        self.kv.check_integrity([branch.table for branch in self.branches])
        if not self.is_exact:
            return
        kv, plain = self.kv, self.plain
        assert kv.room == plain.room
        assert [self.block(b) for b in self.order] == plain.order
        for branch in self.branches:
            blocks = branch.table.blocks
            columns = [
                [b if b is None else self.block(b) for b in c] for c in zip(*blocks, strict=True)
            ]
            assert columns == branch.plain.columns
            assert branch.table.num_stored == branch.plain.stored
        counts = kv.counts()
        assert counts.blocks_used == len(+plain.holders)
        assert counts.blocks_cached == len(plain.order)
        assert counts.blocks_evicted == plain.num_evicted


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
