"""The same requests at random over pages of int4, whose first block is in a layer group of its own.

The short run is some thousand steps; `--octavo-long-fuzz` makes 10,000 that are never the same.
"""

from __future__ import annotations

import pytest

from tests.exactness.test_random_requests import run_engines

EVENTS = """
1 groups / 2 groups / 3 groups / admit / hit, full / hit, partial / hit, of whole blocks
sinks: allocate / sinks: copy / sinks: cache / sinks: extend / sinks: share / sinks: evict
block: take-over / block: let-go / memory moved between groups / fork of answers / fork of beams
no room / resume / preempt / step taken back / rows compared
"""


def test_no_request_notices_another_where_sinks_are_apart(pytestconfig: pytest.Config) -> None:
    long = pytestconfig.getoption("--octavo-long-fuzz")
    kv = [{"kv_dtype": dtype} for dtype in ("int4", "k=int4,v=int8")]
    run_engines(10_000 if long else 1, kv, EVENTS, long)
