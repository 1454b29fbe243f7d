"""Runner.copy_blocks: everything of a block in every layer group, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from octavo.batch import Want, make_batch
from octavo.kernels import native
from octavo.kv_cache.cache import Transfer
from octavo.weights.ggml_type import GGMLType
from tests.program.test_native_groups import two_groups
from tests.tiny import TINY, all_logits, make_runner, random_model, tiny_model

POOL = native.ThreadPool(2)


def test_whole_blocks_are_copied_in_order_in_every_layer_group() -> None:
    model = random_model(two_groups(), POOL, type=GGMLType.F32)
    runner = make_runner(model, POOL, num_blocks=8, kv_dtype="f32")
    assert len({layout.block_stride for layout in runner.layouts}) == 2
    rng = np.random.default_rng(2)
    for pages in runner.pages:
        pages[:] = rng.integers(0, 256, pages.size, dtype=np.uint8)
    before = [pages.copy() for pages in runner.pages]
    pairs = [(5, 0), (0, 7), (2, 2), (6, 5)]  # 7 gets what 0 got from 5
    runner.transfer(Transfer("copy", group, *pair) for pair in pairs for group in (0, 1))
    sources = [5, 1, 2, 3, 4, 6, 6, 5]
    for pages, old, layout in zip(runner.pages, before, runner.layouts, strict=True):
        stride = layout.block_stride
        for block, source in enumerate(sources):
            got = pages[block * stride : (block + 1) * stride]
            assert np.array_equal(got, old[source * stride : (source + 1) * stride])


@pytest.mark.parametrize("kv", ["bf16", "f32"])
def test_a_sequence_goes_on_from_a_copy_of_its_partial_block(kv: str) -> None:
    runner = make_runner(tiny_model(TINY, POOL), POOL, num_blocks=8, kv_dtype=kv)
    prompt = [int(t) for t in np.random.default_rng(3).integers(0, TINY.vocab_size, 45)]
    ends = [[3, 4], [900, 901]]
    alone = [all_logits(runner, [*prompt, *end], table=[0, 1])[45:] for end in ends]
    all_logits(runner, prompt, table=[6, 2])
    runner.transfer([Transfer("copy", 0, 2, 5)])
    spans = [(end, 45) for end in ends]
    batch = make_batch(spans, [[[6, 2], [6, 5]]], range(4), [Want.LOGITS] * 4)
    assert np.array_equal(runner.run(batch).logits, np.concatenate(alone))


@pytest.mark.parametrize("pair", [(8, 0), (0, 8), (-1, 0), (0, -1)])
def test_a_block_that_is_not_there_is_not_copied(pair: tuple[int, int]) -> None:
    runner = make_runner(tiny_model(TINY, POOL), POOL, num_blocks=8)
    with pytest.raises((IndexError, AssertionError)):
        runner.transfer([Transfer("copy", 0, *pair)])
    assert not runner.pages[0].any()
