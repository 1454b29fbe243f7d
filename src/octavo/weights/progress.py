"""How what fetches a model says how far it is. Knows nothing of who shows it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int, str], None]  # (done bytes, total bytes, what is going on)
