"""Runner.transfer: everything of a block in every layer group, and nothing else. Its pages take
memory on first touch and give it back."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
import pytest

from octavo.batch import Asked, Want, make_batch
from octavo.engine.runner import PageStorage
from octavo.errors import OutOfMemoryError
from octavo.kernels import native
from octavo.kv_cache.cache import Transfer
from octavo.weights.ggml_type import GGMLType
from tests.program.test_native_groups import two_groups
from tests.tiny import TINY, all_logits, make_runner, random_model, tiny_model

POOL = native.ThreadPool(2)
_libc = ctypes.CDLL(None, use_errno=True)


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


@pytest.mark.parametrize("kv", ["bf16", "f32", "int8", "int4"])
def test_a_sequence_goes_on_from_a_copy_of_its_partial_block(kv: str) -> None:
    runner = make_runner(tiny_model(TINY, POOL), POOL, num_blocks=40, kv_dtype=kv)
    prompt = [int(t) for t in np.random.default_rng(3).integers(0, TINY.vocab_size, 45)]
    ends = [[3, 4], [900, 901]]
    alone = [all_logits(runner, [*prompt, *end], table=[0, 1])[45:] for end in ends]
    all_logits(runner, prompt, table=[6, 2])
    runner.transfer([Transfer("copy", 0, 2, 5)])
    spans = [(end, 45) for end in ends]
    batch = make_batch(
        spans, [[[6, 2], [6, 5]]] * len(runner.groups), range(4), [Asked(Want.LOGITS)] * 4
    )
    assert np.array_equal(runner.run(batch).logits, np.concatenate(alone))


@pytest.mark.parametrize("pair", [(8, 0), (0, 8), (-1, 0), (0, -1)])
def test_a_block_that_is_not_there_is_not_copied(pair: tuple[int, int]) -> None:
    runner = make_runner(tiny_model(TINY, POOL), POOL, num_blocks=8)
    with pytest.raises((IndexError, AssertionError)):
        runner.transfer([Transfer("copy", 0, *pair)])
    assert not runner.pages[0].any()


def resident_pages(storage: PageStorage, block: int) -> int:
    """Memory pages of a block that the system holds in RAM."""
    address = np.frombuffer(storage.memory, np.uint8).ctypes.data + block * storage.block_bytes
    pages = (ctypes.c_ubyte * (storage.block_bytes // mmap.PAGESIZE))()
    size = ctypes.c_size_t(storage.block_bytes)
    assert _libc.mincore(ctypes.c_void_p(address), size, pages) == 0
    return sum(page & 1 for page in pages)


def test_a_large_range_costs_nothing_until_it_is_written() -> None:
    storage = PageStorage(num_blocks=1 << 16, block_bytes=1 << 20)  # 64 GiB
    pages = np.frombuffer(storage.memory, np.uint8)
    assert [resident_pages(storage, b) for b in (0, 5, 65535)] == [0, 0, 0]
    pages[4 << 20 : 7 << 20] = 1
    assert resident_pages(storage, 5) == (1 << 20) // mmap.PAGESIZE
    storage.release(5)
    assert resident_pages(storage, 5) == 0
    assert pages[5 << 20] == 0
    assert [resident_pages(storage, b) for b in (4, 6)] == [(1 << 20) // mmap.PAGESIZE] * 2


def test_blocks_are_whole_memory_pages() -> None:
    with pytest.raises(AssertionError):
        PageStorage(2, 4095)


def test_an_address_range_that_cannot_be_had_is_refused_with_its_size() -> None:
    with pytest.raises(OutOfMemoryError, match="cannot reserve 4,503,599,627,370,496 bytes"):
        PageStorage(2**40, 4096)
