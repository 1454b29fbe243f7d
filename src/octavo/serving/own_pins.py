"""OwnPins: what an AsyncEngine has pinned and not given up, so that it ends with the AsyncEngine.

Only the engine's thread calls it. Knows nothing of who asked, nor of when to end.
"""

from __future__ import annotations

from collections.abc import Sequence

from octavo.engine.cache_doors import CacheDoors
from octavo.records import Pin


class OwnPins:
    def __init__(self, cache: CacheDoors, most: int) -> None:
        """`most` bytes may be pinned, by whomever."""
        self._cache = cache
        self.most = most
        self._pins: set[Pin] = set()

    def pin(self, tokens: Sequence[int], salt: str, owner: str, part: float) -> Pin:
        """Pin the beginning of a prompt; the owner's pins may hold a part of all that may be."""
        own = int(part * self.most)
        pin = self._cache.pin(tokens, salt, self.most, owner=owner, most_of_owner=own)
        if pin.num_tokens:
            self._pins.add(pin)
        return pin

    def unpin(self, pin: Pin) -> bool:
        self._pins.discard(pin)
        return self._cache.unpin(pin)

    def unpin_all(self) -> None:
        for pin in list(self._pins):
            self.unpin(pin)
