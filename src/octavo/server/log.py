"""One line of JSON for each request, at its end, in plain ASCII.

No line has a word of a prompt, an answer or an error's text, which may quote them, but with
--log-prompts. Requests that only look at the server's state are not told while they succeed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from octavo.errors import OctavoError
from octavo.protocol.common import param_of
from octavo.server.outcome import Outcome

logger = logging.getLogger(__name__)

_QUIET = frozenset({"/health", "/ready", "/metrics"})
_LONGEST = 200  # characters of what a client wrote

Decode = Callable[[Sequence[int]], str]


def log(outcome: Outcome, decode: Decode | None) -> None:
    """Log a request that has ended; with `decode` also what was asked and answered."""
    if not logger.isEnabledFor(logging.INFO):
        return
    if outcome.route in _QUIET and outcome.code < 500:
        return
    line = _line(outcome) | ({} if decode is None else _texts(outcome, decode))
    known = {name: value for name, value in line.items() if value not in (None, [])}
    text = json.dumps(known, separators=(",", ":"))
    logger.info("%s", text.replace("\x7f", "\\u007f"))  # DEL, which JSON leaves


def _line(outcome: Outcome) -> dict[str, object]:
    outputs = outcome.outputs.values()
    times = next((each.metrics for each in outputs), None)  # of several prompts, the first's
    cached = [each.matched_tokens for each in outcome.caches if each is not None]
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "request_id": outcome.id,
        "tenant": outcome.tenant or None,
        "method": outcome.method,
        "route": outcome.route,
        "path": outcome.path[:_LONGEST] if outcome.route is None else None,
        "status": outcome.code,
        "ms": round(outcome.seconds * 1e3, 1),
        "stream": outcome.is_stream or None,
        "prompt_tokens": sum(map(len, outcome.prompts)) if outcome.prompts else None,
        "cached_tokens": sum(cached) if cached else None,
        "completion_tokens": outcome.num_generated,
        "queue_ms": times and _rounded(times.queue_ms),
        "ttft_ms": times and _rounded(times.ttft_ms),
        "tpot_ms": times and _rounded(times.tpot_ms),
        "finish": outcome.finish,
        "noted": outcome.noted,
        "error": None if outcome.error is None else type(outcome.error).__name__,
        "param": _param(outcome.error),
    }


def _param(error: OctavoError | None) -> str | None:
    """The field that is wrong."""
    param = None if error is None else param_of(error)
    return None if param is None else param[:_LONGEST]


def _texts(outcome: Outcome, decode: Decode) -> dict[str, object]:
    answers = [[one.text for one in each.outputs] for each in outcome.outputs.values()]
    message = None if outcome.error is None else str(outcome.error)
    prompts = [decode(ids) for ids in outcome.prompts]
    return {"prompts": prompts, "answers": answers, "message": message}


def _rounded(ms: float | None) -> float | None:
    return None if ms is None else round(ms, 2)
