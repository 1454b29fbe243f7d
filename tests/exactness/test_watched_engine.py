"""What the watcher believes of the cache holds in corners that random runs seldom reach."""

from __future__ import annotations

from collections import Counter

from octavo.kernels import native
from octavo.request import RequestOptions
from octavo.sampling_params import SamplingParams
from octavo.weights.ggml_type import GGMLType
from tests.exactness.alone import Alone
from tests.exactness.watched_engine import WatchedEngine
from tests.tiny import TINY, make_runner, tiny_model

POOL = native.ThreadPool(1)


def test_a_whole_block_that_was_taken_over_holds_other_tokens() -> None:
    """A prompt that shares half of a cached block fills the pool, so it takes the block over in
    place of a copy: whoever asks for the first tokens again finds that half, and no more."""
    model = tiny_model(TINY, POOL, type=GGMLType.BF16)
    alone = Alone(make_runner(model, POOL, num_blocks=4, max_rows=64), frozenset())
    seen: Counter[str] = Counter()
    watched = WatchedEngine(
        model, POOL, alone, seen,
        num_blocks=4, max_rows=64, block_size=16, prefix_cache=True, eviction="lru", context=64,
    )  # fmt: skip
    first = tuple(range(16))
    for prompt in ((*first, 20), (*first[:8], *range(30, 80)), (*first, 21)):
        params = SamplingParams.parse({"temperature": 0, "max_tokens": 3})
        watched.add(prompt, params, RequestOptions())
        watched.drain()
    assert seen["block: take-over"] == 1
    cache = watched.requests[-1].cache
    assert cache is not None
    assert cache.matched_tokens == 8
