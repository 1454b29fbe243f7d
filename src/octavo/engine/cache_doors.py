"""What may be asked of the cache between two steps: to pin, to say how much it has of a prompt, to
be looked at, to forget. Token ids only; a salt names whose they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from octavo.engine.admission import Admission
from octavo.engine.live import LiveRequests
from octavo.engine.transaction import Transaction
from octavo.kv_cache.block_names import Namespace
from octavo.kv_cache.cache import KVCache, Root
from octavo.records import CacheView, Pin


class CacheDoors:
    def __init__(
        self,
        requests: LiveRequests,
        kv: KVCache,
        admission: Admission,
        namespace: Namespace,
        context: int,
    ) -> None:
        self._requests = requests
        self._kv = kv
        self._admission = admission
        self._namespace = namespace
        self._context = context

    def pin(
        self,
        tokens: Sequence[int],
        salt: str,
        most: int,
        *,
        owner: str = "",
        most_of_owner: int | None = None,
    ) -> Pin:
        """Keep the whole blocks of a prompt's beginning that are in the cache, until they are
        unpinned; none if more than `most` bytes would be pinned then, or more than that by their
        owner, or if the longest request that there is, or may come with one answer, would lack
        room."""
        if not self._admission.prefix_cache:
            return Pin(0, 0, "the prefix cache is off")
        needed = [self._admission.at_most(request) for request in self._requests.all]
        longest = max([self._kv.at_most(self._context), *needed])
        with Transaction(self._requests):
            most = min(most, self._kv.budget - longest)
            pin = self._kv.pins.add(
                self.root(salt), tokens, most, owner=owner, most_of_owner=most_of_owner
            )
        return pin

    def unpin(self, pin: Pin) -> bool:
        """Give up a pin; its tokens can be found until their memory is needed. False if it was
        given up before, or cleared."""
        with Transaction(self._requests):
            was_pinned = self._kv.pins.remove(pin)
        return was_pinned

    def cached(self, tokens: Sequence[int], salt: str) -> int:
        """How many of these tokens the cache has, from the first on."""
        if not self._admission.prefix_cache:
            return 0
        return min(self._kv.match(self.root(salt), tokens).num_tokens, len(tokens))

    def view(self, salt: str, most: int = 20) -> CacheView:
        """The cache as it is; pins and prefixes, at most so many, of one salt alone."""
        root, counts = self.root(salt), counts_of(self._requests, self._kv)
        slots = counts["kv_blocks_used"] * self._kv.block_size
        return CacheView(
            counts=counts,
            waste=self._kv.slots_unfilled / slots if slots else 0.0,
            pins=tuple(self._kv.pins.of(root)),
            prefixes=tuple(self._kv.uses.top(root, most)),
        )

    def clear(self, salt: str | None) -> int:
        """Give up all pins of a salt, or of all (None), and forget what no running request holds;
        how many blocks that were."""
        with Transaction(self._requests):
            count = self._kv.clear(salt)
        return count

    def root(self, salt: str) -> Root:
        """Where the prefixes of a salt are found."""
        return self._kv.open(replace(self._namespace, salt=salt))


def counts_of(requests: LiveRequests, kv: KVCache) -> dict[str, int]:
    """Requests and KV blocks as they are."""
    blocks = kv.counts()
    return {
        "running": len(requests.running),
        "waiting": len(requests.waiting),
        "kv_blocks_total": blocks.blocks_total,
        "kv_blocks_used": blocks.blocks_used,
        "kv_blocks_kept": blocks.blocks_cached,
        "kv_blocks_pinned": blocks.blocks_pinned,
        "kv_blocks_evicted": blocks.blocks_evicted,
        "kv_blocks_copied": blocks.blocks_copied,
        "kv_bytes_used": blocks.bytes_used,
        "kv_bytes_kept": blocks.bytes_cached,
        "kv_bytes_empty": blocks.bytes_empty,
    }
