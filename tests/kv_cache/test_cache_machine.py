"""KVCache driven at random, over one to three layer groups. `both_caches` says what is compared."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from octavo.kv_cache.cost_aware import CostAware
from octavo.kv_cache.eviction import LeastRecentlyUsed
from octavo.kv_cache.groups import KeepAll, KeepEnds, KeepLast, LayerGroup
from tests.engine.interrupt import call_raising
from tests.kv_cache.both_caches import MAX_ROWS, SIZE, BothCaches, Branch, Ends
from tests.kv_cache.noted_pages import Text
from tests.kv_cache.plain_blocks import PRIVATE

keeps = st.one_of(
    st.just(KeepAll()),
    st.builds(KeepLast, st.integers(1, 8)),
    st.builds(KeepEnds, st.just(SIZE), st.integers(1, 6)),
)


def apart(end: int, first: int, others: int, more: list[LayerGroup]) -> list[LayerGroup]:
    """Groups of which one has the beginning of every sequence and one what follows it."""
    sinks, rest = KeepAll(end=end), KeepAll(begin=end)
    return [LayerGroup(others, rest), *more, LayerGroup(first, sinks)]


sizes = st.integers(1, 3)
layer_groups = st.one_of(
    st.just([LayerGroup(1)]),
    st.builds(
        apart,
        st.sampled_from([SIZE, SIZE, 2 * SIZE]),
        sizes,
        sizes,
        st.lists(st.builds(LayerGroup, sizes, keeps), max_size=1),
    ),
    st.lists(st.builds(LayerGroup, st.integers(1, 3), keeps), min_size=1, max_size=3),
)
rooms = st.one_of(st.integers(1, 9), st.integers(5, 40))
orders = st.sampled_from([LeastRecentlyUsed] * 3 + [CostAware])
answers = st.lists(st.integers(0, 1), min_size=1, max_size=5).map(tuple)
stems = st.sampled_from([(0,) * 9, (0,) * 6, (0,) * 3 + (1,) * 3, (1,) * 3, ()])
prompts = st.tuples(stems, answers).map(lambda parts: parts[0] + parts[1])
salts = st.sampled_from(["", "", "", "alice", PRIVATE])
picks = st.integers(0, 99)
drafts = st.tuples(picks, st.integers(1, MAX_ROWS), st.integers(0, 4))  # rows, rejected of them

has_branches = precondition(lambda self: self.both.branches)
may_begin = precondition(lambda self: len(self.both.branches) < 6)


class Machine(RuleBasedStateMachine):
    @initialize(
        groups=layer_groups,
        room=rooms,
        order=orders,
        max_pinned=st.integers(0, 12),
        may_break=st.sampled_from([False, False, True]),
        first=st.lists(prompts, min_size=1, max_size=3),
    )
    def start(
        self,
        groups: list[LayerGroup],
        room: int,
        order: type[LeastRecentlyUsed | CostAware],
        max_pinned: int,
        may_break: bool,
        first: list[Text],
    ) -> None:
        self.both = BothCaches(groups, room, order(), max_pinned)
        self.may_break = may_break
        self.texts: list[Text] = []
        for tokens in first:
            self.begin("", tokens, True)

    def pick(self, pick: int) -> Branch:
        return self.both.branches[pick % len(self.both.branches)]

    @may_begin
    @rule(salt=salts, seen=picks, cut=st.integers(0, 12), more=answers, waits=st.booleans())
    def submit(self, salt: str, seen: int, cut: int, more: Text, waits: bool) -> None:
        """A prompt that begins as one before it, but for the last `cut` tokens."""
        text = self.texts[seen % len(self.texts)]
        self.begin(salt, text[: max(0, len(text) - cut)] + more, not waits)

    def begin(self, salt: str, tokens: Text, runs: bool) -> None:
        self.texts.append(tokens)
        branch, fits = self.both.begin(salt, tokens)
        end = min(len(tokens), branch.table.num_stored + MAX_ROWS)
        assert self.both.reserve(branch, end) or not fits
        while runs and end > branch.table.num_stored and self.both.reserve(branch, end):
            self.both.run({branch: (end, end)})
            end = min(len(tokens), end + MAX_ROWS)

    @has_branches
    @rule(chosen=st.lists(drafts, max_size=4))
    def step(self, chosen: list[tuple[int, int, int]]) -> None:
        """Some rows of some branches run; of each the last few may be drafts that are rejected."""
        ends: dict[Branch, Ends] = {}
        for pick, rows, rejected in chosen:
            branch = self.pick(pick)
            stored = branch.table.num_stored
            end = min(stored + rows, len(branch.tokens))
            can_run = self.both.kv.can_run(branch.table, min(stored, end - 1))
            if can_run and branch not in ends and self.both.reserve(branch, end):
                ends[branch] = end, max(stored, end - rejected, 1)
        self.both.run(ends)

    @has_branches
    @rule(pick=picks, more=answers)
    def extend(self, pick: int, more: Text) -> None:
        self.pick(pick).tokens += more

    @has_branches
    @may_begin
    @rule(pick=picks)
    def fork(self, pick: int) -> None:
        self.both.transfer()
        self.both.fork(self.pick(pick))

    @has_branches
    @rule(pick=picks, is_named=st.booleans())
    def finish(self, pick: int, is_named: bool) -> None:
        branch = self.pick(pick)
        self.texts.append(branch.tokens)
        self.both.end(branch, is_named)

    @precondition(lambda self: self.both.roots[PRIVATE].children)
    @rule(is_named=st.booleans())
    def close(self, is_named: bool) -> None:
        """The request ends whose root is its own."""
        for branch in [b for b in self.both.branches if b.salt == PRIVATE]:
            self.both.end(branch, is_named)
        self.both.close()

    @has_branches
    @rule(pick=picks, back=st.integers(0, 9))
    def truncate(self, pick: int, back: int) -> None:
        self.both.transfer()
        branch = self.pick(pick)
        end = max(0, branch.table.num_stored - back)
        if branch.table.can_shrink(end):
            self.both.truncate(branch, end)

    @rule(seen=picks, salt=st.sampled_from(["", "", "alice"]))
    def pin(self, seen: int, salt: str) -> None:
        self.both.pin(salt, self.texts[seen % len(self.texts)])

    @precondition(lambda self: self.both.pinned)
    @rule(pick=picks)
    def unpin(self, pick: int) -> None:
        self.both.unpin(pick % len(self.both.pinned))

    @rule(salt=st.sampled_from(["", "alice", None]))
    def clear(self, salt: str | None) -> None:
        self.both.clear(salt)

    @precondition(lambda self: self.both.has_idle_memory)
    @rule(empty_for=st.integers(0, 3), cached_for=st.integers(0, 12))
    def reclaim(self, empty_for: int, cached_for: int) -> None:
        self.both.reclaim(empty_for, cached_for)

    @precondition(lambda self: self.may_break and self.both.branches)
    @rule(pick=picks, line=st.integers(0, 120), kind=st.integers(0, 5), number=st.integers(0, 9))
    def break_off(self, pick: int, line: int, kind: int, number: int) -> None:
        """An exception at any line. What the tables say is so, and can be gone on from."""
        branch, both, kv = self.pick(pick), self.both, self.both.kv
        table, tokens = branch.table, branch.tokens
        if kind == 0:
            both.branches.remove(branch)
        if kind == 3:
            both.make_transfers()
        if kind > 3:
            both.transfer()
        end = max(0, table.num_stored - number)
        calls = [
            lambda: kv.free(table, tokens),
            lambda: kv.reserve(table, min(table.num_stored + number, len(tokens))),
            lambda: kv.begin(both.roots[""], kv.match(both.roots[""], tokens)),
            kv.commit_transfers,
            lambda: kv.fork(table),
            lambda: kv.truncate(table, end) if table.can_shrink(end) else None,
        ]
        both.is_exact = False
        lines = iter(range(line + 1))
        call_raising(calls[kind], KeyboardInterrupt(), at=lambda _: next(lines, None) == line)
        kv.recover([b.table for b in both.branches])
        for each in both.branches:
            if kv.can_run(each.table, each.table.num_stored):
                both.read(each, each.table.num_stored)

    @invariant()
    def agree(self) -> None:
        self.both.check()


def test_pages_hold_what_a_plain_model_says(pytestconfig: pytest.Config) -> None:
    examples = 2_000 if pytestconfig.getoption("--octavo-long-fuzz") else 200
    run_state_machine_as_test(
        Machine, settings=settings(max_examples=examples, stateful_step_count=40, deadline=None)
    )
