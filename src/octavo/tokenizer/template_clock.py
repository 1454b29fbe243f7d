"""The time of day as a chat template asks for it. Knows no template."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

_LONGEST_FORMAT = 100  # characters


def clock() -> Callable[[str], str]:
    """`strftime_now` for templates, stopped at the moment of this call."""
    now = datetime.now()

    def strftime_now(form: str) -> str:
        if len(form) > _LONGEST_FORMAT:
            raise ValueError(f"strftime_now: a format of {len(form):,} characters")
        return now.strftime(form)

    return strftime_now
