"""Int8 pages: what a token's bytes are, by hand."""

from __future__ import annotations

import numpy as np

from octavo.kernels import native
from octavo.program.rounding import rotate
from tests.kernels.exact import F32, Floats
from tests.kernels.guard import guarded
from tests.kernels.levels import every_isa
from tests.kernels.page_twin import row_bytes

INT8 = ("int8", "int8")


def token_of(isa: str, k: Floats, v: Floats) -> tuple[list[int], float, list[int], float]:
    """The bytes and the scale of K and of V of one token of 16 dims."""
    layout = native.KVLayout(1, 1, 16, 16, *INT8, 16)
    pages = guarded(np.zeros(layout.block_stride, np.uint8))
    table, at = np.zeros(1, np.int32), np.array([6], np.int32)
    native.write_kv(isa, pages, layout, table, at, 0, k.reshape(1, 1, 16), v.reshape(1, 1, 16))
    rows = [pages[where] for where in row_bytes(layout, 0, 0, 0, 6)]
    (k_bytes, k_scale), (v_bytes, v_scale) = ((r[:16].tolist(), r[16:].view(F32)) for r in rows)
    return k_bytes, float(k_scale[0]), v_bytes, float(v_scale[0])


@every_isa
def test_a_byte_is_128_more_than_the_value_over_the_scale_with_ties_to_even(isa: str) -> None:
    """Rotated twice a row is what it was, here without a rounding."""
    k = np.array(
        [127, -127, 0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 63.375, 63.625, 1, 2, 3, 4], F32
    )
    k_bytes, k_scale, v_bytes, v_scale = token_of(isa, rotate(k), k * F32(2.0**-9))
    want = [255, 1, 128, 128, 128, 130, 130, 128, 126, 126, 191, 192, 129, 130, 131, 132]
    assert (k_bytes, k_scale) == (want, 1.0)
    assert (v_bytes, v_scale) == (want, 2.0**-9)


@every_isa
def test_a_row_of_zeros_has_scale_0_and_a_row_with_a_nan_an_infinite_one(isa: str) -> None:
    k, v = np.zeros(16, F32), np.ones(16, F32)
    for poison in (np.nan, np.inf, -np.inf):
        v[11] = poison
        assert token_of(isa, k, v) == ([128] * 16, 0.0, [128] * 16, np.inf)


def test_smollm2_keeps_136_bytes_a_token_and_head_where_bf16_keeps_256() -> None:
    int8, bf16 = (native.KVLayout(30, 3, 64, 64, kind, kind, 32) for kind in ("int8", "bf16"))
    assert int8.k_head_stride == int8.v_head_stride == 32 * (64 + 4)
    assert int8.block_stride / bf16.block_stride == 384 / 720  # 382.5 KiB in whole pages
