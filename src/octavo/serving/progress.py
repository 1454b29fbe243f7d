"""How far a request's prompt is, as anybody may look at it while it runs.

Reads counts that the engine's thread writes; each of them is right, if not all of one step.
"""

from __future__ import annotations

from octavo.engine.engine import Engine
from octavo.engine.nouns import Request
from octavo.request import Progress


def progress(request: Request, engine: Engine) -> Progress | None:
    """Return how far it is; None before it has begun to run."""
    cache = request.cache
    if cache is None:
        return None
    total, first = request.num_prompt_tokens, request.branches[0]
    processed = min(max(first.num_computed_tokens, cache.matched_tokens), total)
    left = engine.budget.seconds(processed, total) if processed < total else 0.0
    return Progress(
        total=total,
        cached=cache.matched_tokens,
        processed=processed,
        time_ms=(engine.clock() - request.added_at) * 1e3,
        eta_ms=None if left is None else left * 1e3,
    )
