"""StopStrings: lets text through up to the first stop string, holding back what may be its
beginning.

Comes in: pieces of text in order. Goes out: what may be shown. Knows no tokens.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """The part of all text so far that is now sure to be shown. Nothing once a stop was
        found."""
        if self.found is not None:
            return ""
        self._held += text
        at = {stop: self._held.find(stop) for stop in self._stops}
        hits = [(position, stop) for stop, position in at.items() if position >= 0]
        if hits:
            position, self.found = min(hits)
            shown, self._held = self._held[:position], ""
            return shown
        keep = max((self._overlap(stop) for stop in self._stops), default=0)
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return shown

    def finish(self) -> str:
        """What was held back for a stop string that never came."""
        shown, self._held = self._held, ""
        return shown

    def _overlap(self, stop: str) -> int:
        """Length of the longest end of the held text that begins `stop`."""
        longest = min(len(stop) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if self._held.endswith(stop[:n])), 0)
