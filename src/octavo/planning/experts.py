"""Counts what of a model's weights a token reads: of experts only those that it is given.

Comes in: a program and the bytes of its weights. Goes out: bytes. Many tokens together read more,
up to all; the cost interpreter counts that.
"""

from __future__ import annotations

from collections.abc import Mapping

from octavo.program.cost import expert_bytes, unread_bytes
from octavo.program.program import Program


def active_bytes(program: Program, weight_bytes: Mapping[str, float]) -> float:
    """Return the bytes of weights that one token's row may read, all of an embedding with them: all
    bytes, where there are no experts."""
    unread = unread_bytes(expert_bytes(program, weight_bytes), rows=1)
    return sum(weight_bytes.values()) - unread
