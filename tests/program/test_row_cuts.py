"""Ops of the native interpreter on any number of rows: fused as apart, and however rows are cut.

Gate and up have a kernel of their own from three rows on, rows are quantised by the tile, and more
than 96 rows are cut into blocks for each thread.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from octavo.kernels import native
from octavo.weights.ggml_type import GGMLType
from tests.kernels.gguf_blocks import OWN_FORMAT
from tests.tiny import SMALL_BLOCKS, TINY, all_logits, make_runner, tiny_model

POOL = native.ThreadPool(2)
TOKENS = [int(t) for t in np.random.default_rng(8).integers(0, TINY.vocab_size, 223)]


@pytest.mark.parametrize("type", OWN_FORMAT, ids=lambda t: t.name)
def test_any_number_of_rows_is_fused_as_it_is_apart(type: GGMLType) -> None:
    model = tiny_model(replace(SMALL_BLOCKS, ffn_size=512), POOL, type=type)
    fused, apart = (make_runner(model, POOL, fuse=fuse) for fuse in (True, False))
    for rows in (1, 2, 3, 6, 7, 18, 19, 25):
        got, want = all_logits(fused, TOKENS[:rows]), all_logits(apart, TOKENS[:rows])
        assert np.abs(want).max() > 0
        assert np.array_equal(got, want), rows


@pytest.mark.parametrize("activations", ["int8", "bf16"])
def test_blocks_of_rows_are_as_rows_one_by_one(activations: str) -> None:
    """223 rows are 38 tiles: three blocks on one thread or three, four on two."""
    model = tiny_model(replace(TINY, ffn_size=160), POOL, type=GGMLType.Q4_1)
    options: dict[str, Any] = {"num_blocks": 64, "max_rows": 256, "activations": activations}
    chunks = all_logits(make_runner(model, POOL, **options), TOKENS, range(1, len(TOKENS)))
    for threads in (1, 2, 3):
        pool = native.ThreadPool(threads)
        whole = all_logits(make_runner(model, pool, **options), TOKENS)
        assert np.array_equal(whole, chunks), threads
