"""Admission: which waiting requests may begin now, and which can never.

A request is admitted when the KV memory of its tokens can be had, beside what the running ones need
to reach their next token. It waits while a running branch computes blocks that it could share: 32
requests offered together would compute their common prefix 32 times, so all but the first wait
until its blocks are there. Only whole blocks are waited for: to wait for the last few tokens inside
a block would run requests one after another that share little more than how a template begins.
"""

from __future__ import annotations

from collections.abc import Iterator

from octavo.config import EngineConfig
from octavo.engine.live import LiveRequests
from octavo.engine.nouns import Branch, Request, Wait
from octavo.engine.step_budget import StepBudget
from octavo.errors import OutOfMemoryError, UsageError, counted
from octavo.kv_cache.cache import NO_MATCH, KVCache, Match
from octavo.records import CacheReason, CacheRecord, CacheSource

_LOOKED_AT = 256  # waiting requests that a step considers; the others are behind all of them
_PARTED = (CacheReason.COLD, CacheReason.SALT, CacheReason.EVICTED, CacheReason.DIVERGED)


class Admission:
    def __init__(
        self,
        requests: LiveRequests,
        kv: KVCache,
        budget: StepBudget,
        config: EngineConfig,
    ) -> None:
        self._requests = requests
        self._kv = kv
        self._budget = budget
        self._max_num_seqs = config.max_num_seqs
        self._sliding_context = config.sliding_context
        self.prefix_cache = config.prefix_cache and config.kv_cache
        self._longest_prefix_first = config.schedule == "longest-prefix"

    def check(self, request: Request) -> None:
        """Raises UsageError, and OutOfMemoryError, with both numbers, if it can never run."""
        decoding = request.decoding
        answers = decoding.width_option
        if decoding.goes_together and not self._requests.keep_computed:
            raise UsageError(f"{answers} needs the KV cache: leave kv_cache=False out")
        if request.width > self._max_num_seqs:
            raise UsageError(
                f"{answers}={request.width}: a step runs at most "
                f"{counted(self._max_num_seqs, 'sequence')}: "
                f"lower {answers} or raise max_num_seqs"
            )
        if decoding.goes_together and request.width > self._budget.max_rows:
            raise UsageError(
                f"{answers}={request.width}: they go on together, and a step runs at most "
                f"{counted(self._budget.max_rows, 'token')}: "
                f"lower {answers} or raise max_batch_tokens"
            )
        needed, room = self.at_most(request), self._kv.budget - self._kv.pins.num_bytes
        if needed > room:
            lower = [f"lower {answers}"] if request.width > 1 else []
            if self._at_most(request, 1) <= room:
                lower.append("lower max_tokens")
            block = self._kv.block_bytes
            raise OutOfMemoryError(
                f"the request may need {-(-needed // block):,} KV blocks of "
                f"{self._kv.block_size} tokens, the pool has {room // block:,}"
                f"{' beside those that are pinned' if self._kv.pins.num_bytes else ''}: "
                f"{' or '.join([*lower, 'raise kv_memory'])}"
            )

    def at_most(self, request: Request) -> int:
        """Bytes at its longest, that it may need with nobody beside it."""
        return self._at_most(request, request.max_tokens)

    @property
    def has_slot(self) -> bool:
        """Whether more answers may grow than those that do, or will, of the running requests."""
        return self._num_taken() < self._max_num_seqs

    def who_may_begin(self) -> Iterator[tuple[Request, Match]]:
        """Waiting requests that may begin in a step, one after the other, each with what was found
        of its prompt. Whoever reads on has begun the one before."""
        requests, kv = self._requests, self._kv
        if self._budget.rows_left == 0:
            return
        taken = self._num_taken()
        if taken >= self._max_num_seqs:
            return
        room = kv.room - sum(self._outstanding(request) for request in requests.running)
        for request in self._candidates():
            branch = request.live_branches[0]
            match = self.find(branch)
            if match is None:
                continue  # waits for a running one, so those behind it need not wait too
            missing = self._to_begin(request, match)
            if missing > room or taken + request.decoding.num_slots(request) > self._max_num_seqs:
                return
            begin = min(match.num_tokens, branch.num_tokens - 1)
            if self._budget.fit(begin, branch.num_tokens) == begin:
                return  # no time left in this step
            room -= missing
            taken += request.decoding.num_slots(request)
            self._note_cache(request, match)
            yield request, match

    def find(self, branch: Branch) -> Match | None:
        """Find what is cached of a branch's tokens; None: it waits for a producer of more of
        them."""
        if branch.wait is not None:
            producer, until = branch.wait
            if producer.table is not None and producer.num_computed_tokens < until:
                return None
            branch.wait = None
        match = self._match(branch)
        if self._requests.keep_computed and not branch.request.needs_every_row:
            branch.wait = self._find_producer(branch, match.num_tokens)
        return match if branch.wait is None else None

    def _num_taken(self) -> int:
        return sum(request.decoding.num_slots(request) for request in self._requests.running)

    def _candidates(self) -> list[Request]:
        first = self._requests.waiting[:_LOOKED_AT]
        if not self._longest_prefix_first:
            return first
        found = {request: self._match(request.branches[0]).num_tokens for request in first}
        return sorted(first, key=lambda r: (r.options.priority, -found[r], r.id))

    def _match(self, branch: Branch) -> Match:
        if not self._requests.keep_computed or branch.request.needs_every_row:
            return NO_MATCH
        return self._kv.match(branch.request.root, branch.tokens)

    def _find_producer(self, branch: Branch, num_found: int) -> Wait | None:
        """A running branch that computes whole blocks of this one beyond the `num_found` tokens
        that are there."""
        begin = num_found - num_found % self._kv.block_size
        for other in self._requests.running:
            if other.root is not branch.request.root:
                continue
            for producer in other.branches:
                if producer.table is None:
                    continue
                until = self._num_shared(branch, producer, begin)
                if until > max(begin, producer.num_computed_tokens):
                    return Wait(producer, until)
        return None

    def _num_shared(self, branch: Branch, producer: Branch, begin: int) -> int:
        """Tokens of whole blocks that both begin with, more than `begin`; 0 if no more."""
        size, mine, theirs = self._kv.block_size, branch.tokens, producer.tokens
        if producer is branch or producer.num_computed_tokens >= producer.num_tokens - 1:
            return 0  # with one token to go it decodes: what it shares is there, or nearly
        end, most = begin, min(len(mine), len(theirs)) - size
        while end <= most and theirs[end : end + size] == mine[end : end + size]:
            end += size
        # What comes before is compared last: it may be long, and mostly there is nothing to share.
        return end if end > begin and theirs[:begin] == mine[:begin] else 0

    def _at_most(self, request: Request, max_tokens: int) -> int:
        """Bytes at its longest with so many tokens drawn: whole blocks of the prompt are shared by
        all branches. The last token drawn is never computed, so its K and V need no slot."""
        longest = request.num_prompt_tokens + max_tokens - 1
        shared = request.num_prompt_tokens if self._requests.keep_computed else 0
        others = (request.width - 1) * self._kv.at_most(longest, shared=shared)
        return self._kv.at_most(longest) + others

    def _to_begin(self, request: Request, match: Match) -> int:
        """Bytes that its branches take to reach their next token, `match` found of the first;
        whole blocks of the prompt are taken once."""
        first, *others = request.live_branches
        shared = request.num_prompt_tokens
        alone = sum(self._kv.at_most(_next_length(b), shared=shared) for b in others)
        return self._kv.need(_next_length(first), match) + alone

    def _outstanding(self, request: Request) -> int:
        """Bytes that a running request still takes to reach its next token."""
        return sum(
            self._kv.need(_next_length(branch), self._match(branch))
            if branch.table is None
            else self._kv.need_more(branch.table, _next_length(branch))
            for branch in request.live_branches
        )

    def _note_cache(self, request: Request, match: Match) -> None:
        """Say once, when a request first begins, what was found of its prompt and why not more; the
        last token of it is computed in any case."""
        if request.cache is not None:
            return
        reason: CacheReason | None = CacheReason.DISABLED
        if self.prefix_cache and request.every_row is not None:
            reason = CacheReason.NEEDS_ALL_ROWS
        elif self.prefix_cache:
            reason = self._kv.miss_reason(request.root, request.prompt_token_ids, match)
        found = min(match.num_tokens, request.num_prompt_tokens - 1)
        known = min(match.known, request.num_prompt_tokens - 1)
        saved = self._budget.seconds(0, found) if found else 0.0
        request.cache = CacheRecord(
            matched_tokens=found,
            source=CacheSource.PROCESS if found else CacheSource.NONE,
            reason=reason,
            diverged_at=match.num_tokens if reason in _PARTED else None,
            saved_ms=None if saved is None else saved * 1e3,
            known_tokens=known if reason is CacheReason.WINDOW else None,
            sliding_context=self._sliding_context,
        )
        self._requests.counters.begin(request)


def _next_length(branch: Branch) -> int:
    """Slots in use when its next token but one can be drawn, or at its end."""
    request = branch.request
    return min(branch.num_tokens + 1, request.num_prompt_tokens + request.max_tokens - 1)
