"""Cache report: what was found of a request's prompt, and why not more.

Knows the prefix index, through what it matched. Knows no blocks' states and no text: the text of
the token where the prompt parted is added by who knows the tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable

from octavo.kv_cache.prefix_index import Match, Node, PrefixIndex
from octavo.records import CacheReason, CacheRecord, CacheSource
from octavo.request import Request

_PARTED = (CacheReason.COLD, CacheReason.SALT, CacheReason.EVICTED, CacheReason.DIVERGED)


def cache_record(
    request: Request,
    reason: CacheReason | None,
    match: Match,
    seconds_to_compute: Callable[[int, int], float | None],
) -> CacheRecord:
    """`match`: of the whole prompt; its last token is computed in any case."""
    found = min(match.num_tokens, request.num_prompt_tokens - 1)
    saved = seconds_to_compute(0, found) if found else 0.0
    return CacheRecord(
        matched_tokens=found,
        source=CacheSource.PROCESS if found else CacheSource.NONE,
        reason=reason,
        diverged_at=match.num_tokens if reason in _PARTED else None,
        saved_ms=None if saved is None else saved * 1e3,
    )


def miss_reason(
    index: PrefixIndex, root: Node, request: Request, match: Match
) -> CacheReason | None:
    """Why not all that could be reused was; None if it was."""
    if request.needs_all_rows:
        return CacheReason.NEEDS_ALL_ROWS
    if match.num_tokens >= request.num_prompt_tokens - 1:
        return None
    node = match.nodes[-1] if match.nodes else root
    if index.was_evicted(node, request.prompt_token_ids[node.end :]):
        return CacheReason.EVICTED
    if index.is_empty(root):
        return CacheReason.SALT if request.options.cache_salt else CacheReason.COLD
    return CacheReason.DIVERGED
