"""For tests that walk all options: a value of each that is not its default."""

from __future__ import annotations

from typing import Any

from octavo.options import Option
from tests.sums import Sums

# Of options that read a text or a list of their own.
_KNOWN: dict[str, Any] = {
    "kv_dtype": "k=f32,v=int4", "sliding_context": 64, "sinks": 32, "kv_memory": 4096,
    "cache_salt": "mine", "stop": ("a", "b"), "stop_token_ids": (3, 5),
    "logit_bias": {3: -1.5}, "shown_tokens": (3, 5), "constraint": Sums(2, 3),
}  # fmt: skip


def other_value(each: Option) -> Any:
    """One that it takes, which is not its default."""
    if each.name in _KNOWN:
        return _KNOWN[each.name]
    if each.choices:
        return next(choice for choice in each.choices if choice != each.default)
    if each.kind is bool:
        return not each.default
    return next(n for n in (2, 1, 0.5) if n != each.default and each.low <= n <= each.high)
