"""The words of simd.h, each on every ISA level, against numpy.

Edge values, random bit patterns, and small domains whole. Everything is compared bit for bit;
NaNs only as NaN, for their payloads differ between machines.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from octavo.kernels import available_isas, native
from tests.kernels.exact import F32, Join, fma, from_bf16, to_bf16, tree
from tests.kernels.simd_words import EDGES, as_vectors, check, in_front, pairs, random_floats, run

pytestmark = pytest.mark.parametrize("isa", available_isas())


@pytest.mark.parametrize(
    ("word", "operation"),
    [
        ("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("div", np.divide),
        ("max", lambda a, b: np.where(a > b, a, b)),  # b if either is NaN, and max(+0, -0) is b
        ("min", lambda a, b: np.where(a < b, a, b)),
    ],
)  # fmt: skip
def test_arithmetic_is_ieee_single(isa: str, word: str, operation: Join) -> None:
    for a, b in (pairs(EDGES), (random_floats(1), random_floats(2))):
        with np.errstate(all="ignore"):
            check(run(isa, word, F32, a, b), operation(a, b))


def test_fma_rounds_once_except_on_base(isa: str) -> None:
    a, b = pairs(EDGES[np.isfinite(EDGES) & (np.abs(EDGES) < 1e18)])
    c = np.tile(EDGES, a.size // EDGES.size + 1)[: a.size]
    x, y, z = random_floats(3), random_floats(4), random_floats(5)
    with np.errstate(all="ignore"):
        near32 = -x * y  # cancellation: only the rounding error of the product is left
        for p, q, r in ((a, b, c), (x, y, z), (x, y, near32)):
            check(run(isa, "fma", F32, p, q, r), fma(p, q, r, isa != "base"))
    # Halfway between two floats but for the product's last bit, for which float64 has no room.
    odd = np.arange(1, 129, 2, dtype=F32)
    for half, c in ((2.0**-12, 1 + odd * F32(2.0**-23)), (2.0**-75, odd * F32(2.0**-149))):
        p, q = (np.full(128, (1 + end) * half, F32) for end in (2.0**-23, -(2.0**-23)))
        c = np.concatenate([c, -c])
        check(run(isa, "fma", F32, p, q, c), fma(p, q, c, isa != "base"))
    a = np.full(16, 1 + 2.0**-12, F32)
    known = run(isa, "fma", F32, a, a, np.full(16, -1 - 2.0**-11, F32))
    assert known[0, 0] == (0.0 if isa == "base" else 2.0**-24)


def test_round_even_and_to_int(isa: str) -> None:
    for values in (EDGES, random_floats(6), np.arange(-70000, 70000, dtype=F32) / 2):
        with np.errstate(all="ignore"):
            rounded = np.rint(values)
            fits = (values >= -(2.0**31)) & (values < 2.0**31)
            whole = np.where(fits, rounded, 0).astype(np.int64)
            want = np.where(fits, whole, -(2**31)).astype(np.int32)
        check(run(isa, "round_even", F32, values), rounded)
        check(run(isa, "to_int", np.int32, values), want)


def test_to_float_rounds_to_nearest_even(isa: str) -> None:
    rng = np.random.default_rng(7)
    values = rng.integers(-(2**31), 2**31, 4096).astype(np.int32)
    values[:6] = [-(2**31), 2**31 - 1, 2**24 + 1, 2**24 + 3, -(2**24) - 1, 0]
    check(run(isa, "to_float", F32, values), values.astype(F32))


def test_scale2_over_all_exponents(isa: str) -> None:
    n = np.arange(-126, 128, dtype=F32)
    for p in (1.0, 1.9999999, -0.75, 3.0e-39, 1.0e38, 0.0, -0.0, np.inf, np.nan, 1.0000001):
        with np.errstate(all="ignore"):
            want = np.ldexp(np.full(n.size, F32(p), np.float64), n.astype(np.int32)).astype(F32)
        check(run(isa, "scale2", F32, np.full(n.size, p, F32), n), want)


def test_scale2_from_is_0_where_x_is_lower_and_not_where_it_is_nan(isa: str) -> None:
    low, x = pairs(EDGES)
    n = np.resize(np.arange(-126, 128, dtype=F32), x.size)
    want = np.where(x < low, F32(0), np.ldexp(F32(0.75), n.astype(np.int32)))
    check(run(isa, "scale2_from", F32, low, x, n), want)


def test_integer_words_wrap_and_shift(isa: str) -> None:
    rng = np.random.default_rng(8)
    a, b = rng.integers(0, 2**32, (2, 1024), dtype=np.uint32)
    wants = {
        "add_i": a + b, "sub_i": a - b, "and_i": a & b, "or_i": a | b,
        "shift_left_4": a << 4, "shift_left_16": a << 16,
        "shift_right_u_4": a >> 4, "shift_right_u_16": a >> 16,
        "shift_right_s_7": (a.view(np.int32) >> 7).view(np.uint32),
        "shift_right16_4": (a.view(np.uint16) >> 4).view(np.uint32),
        "as_int": a, "as_float": a, "zero_i": np.zeros_like(a), "zero_f": np.zeros_like(a),
    }  # fmt: skip
    wants |= dict.fromkeys(("set1_i", "set1_f"), np.repeat(a[::16], 16))
    for word, want in wants.items():
        check(run(isa, word, np.uint32, a, b), want)


@pytest.mark.parametrize(("word", "limit"), [("dot_u8s8", 256), ("dot_u7s8", 128)])
def test_byte_dot_is_exact_at_every_place_and_does_not_saturate(
    isa: str, word: str, limit: int
) -> None:
    w, a = pairs(np.arange(256))
    w, a = w[w < limit].astype(np.uint8), a[w < limit].astype(np.uint8).view(np.int8)
    for place in range(4):
        wide_w, wide_a = np.zeros((2, w.size, 4), np.uint8)
        wide_w[:, place], wide_a[:, place] = w, a.view(np.uint8)
        acc = np.arange(w.size, dtype=np.int32)
        check(run(isa, word, np.int32, wide_w, wide_a, acc), acc + w.astype(np.int32) * a)
    rng = np.random.default_rng(9)
    w = rng.integers(0, limit, 64 * 256).astype(np.uint8)
    a = rng.integers(-128, 128, w.size).astype(np.int8)
    w[: 64 * 4], a[: 64 * 2], a[64 * 2 : 64 * 4] = limit - 1, -128, 127
    acc = rng.integers(-(2**30), 2**30, w.size // 4).astype(np.int32)
    products = w.astype(np.int32) * a.astype(np.int32)
    want = acc + products.reshape(-1, 4).sum(axis=1, dtype=np.int32)
    check(run(isa, word, np.int32, w, a, acc), want)


def lane_bits(booleans: NDArray[np.bool_]) -> NDArray[np.uint16]:
    return np.packbits(booleans.reshape(-1, 16), axis=1, bitorder="little").view(np.uint16)[:, 0]


def test_masks_of_comparisons(isa: str) -> None:
    for a, b in (pairs(EDGES), (random_floats(12), random_floats(13))):
        assert np.array_equal(run(isa, "lt", np.uint32, a, b)[:, 0], lane_bits(a < b))
        assert np.array_equal(run(isa, "is_nan", np.uint32, a)[:, 0], lane_bits(np.isnan(a)))


def test_first_lanes_takes_any_count(isa: str) -> None:
    counts = np.arange(-3, 40, dtype=np.int32)
    got = run(isa, "first_lanes", np.uint32, in_front(counts))[:, 0]
    assert got.tolist() == [(1 << min(max(int(n), 0), 16)) - 1 for n in counts]


def test_select_and_mask_words_for_every_mask(isa: str) -> None:
    masks = in_front(np.arange(2**16, dtype=np.uint32))
    other = masks[::-1].copy()
    chosen = (masks[:, :1] >> np.arange(16, dtype=np.uint32) & 1).astype(bool)
    a, b = np.full(chosen.shape, 2.0, F32), np.full(chosen.shape, -3.0, F32)
    check(run(isa, "select", F32, a, b, masks), np.where(chosen, a, b).reshape(-1))
    both = run(isa, "and_m", np.uint32, masks, other)
    assert np.array_equal(both[:, 0], masks[:, 0] & other[:, 0])
    check(run(isa, "load_f_mask", F32, a, masks), np.where(chosen, a, 0).reshape(-1))
    stored = run(isa, "store_f_mask", F32, a, masks, out=as_vectors(b))
    check(stored, np.where(chosen, a, b).reshape(-1))


def test_mask_byte_add16_reaches_every_byte(isa: str) -> None:
    rng = np.random.default_rng(14)
    values = rng.integers(0, 256, (66, 64)).astype(np.uint8)
    masks = [1 << k for k in range(64)] + [0, 2**64 - 1]
    words = in_front(np.array(masks, np.uint64))
    want = values + 16 * np.array([[m >> byte & 1 for byte in range(64)] for m in masks], np.uint8)
    check(run(isa, "mask_byte_add16", np.uint8, values, words), want.reshape(-1))


def test_look_up_takes_every_byte_from_its_place(isa: str) -> None:
    rng = np.random.default_rng(17)
    table = rng.integers(0, 256, 16).astype(np.uint8)
    places = np.concatenate([np.repeat(np.arange(16), 64), rng.integers(0, 16, 1024)])
    tables = np.tile(table, 4 * len(places) // 64)
    check(run(isa, "look_up", np.uint8, places.astype(np.uint8), tables), table[places])


def test_words_that_move_lanes(isa: str) -> None:
    values = np.arange(1, 129, dtype=F32)
    for k in (1, 2, 4, 8):
        check(run(isa, f"swap_lanes_{k}", F32, values), values[np.arange(128) ^ k])
    check(run(isa, "twice_each", F32, values), np.repeat(values.reshape(-1, 16)[:, :8], 2))


def test_reductions_follow_one_tree(isa: str) -> None:
    rng = np.random.default_rng(15)
    values = (rng.standard_normal((512, 16)) * 10.0 ** rng.integers(-6, 6, (512, 16))).astype(F32)
    values[0, 3], values[1, 9], values[2, :] = np.nan, np.inf, -0.0
    with np.errstate(all="ignore"):
        check(run(isa, "reduce_add", F32, values)[:, 0], tree(values))
        want = tree(values, lambda a, b: np.where(a > b, a, b))
    check(run(isa, "reduce_max", F32, values)[:, 0], want)


def test_loads_of_every_pattern(isa: str) -> None:
    halves = np.arange(2**16, dtype=np.uint16)
    blocks = np.pad(halves.reshape(-1, 16), ((0, 0), (0, 16)))
    check(run(isa, "load_f16", F32, blocks), halves.view(np.float16).astype(F32))
    check(run(isa, "load_bf16", F32, blocks), from_bf16(halves))


def test_bf16_words_round_ties_to_even_and_a_store_may_flush_denormals(isa: str) -> None:
    for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):  # below, at and above the tie
        values = (np.arange(2**16, dtype=np.uint32) << 16 | np.uint32(low)).view(F32)
        other, want = values[::-1].copy(), to_bf16(values)
        pair = want | to_bf16(other).astype(np.uint32) << 16
        check(run(isa, "to_bf16_pair", np.uint32, values, other), pair)
        got = run(isa, "store_bf16", np.uint16, values)[:, :16].reshape(-1)
        denormal = (np.abs(values) < 2.0**-126) & (values != 0)
        flushed = denormal & (got == (want & 0x8000))
        nan = np.isnan(values) & ((got & 0x7FFF) > 0x7F80)  # its payload is the level's own
        check(np.where(flushed | nan, want, got), want)


def test_dot_bf16_on_exact_sums_is_the_same_everywhere(isa: str) -> None:
    rng = np.random.default_rng(10)
    a, b = rng.integers(-128, 129, (2, 4096)).astype(F32)  # products and sums are exact in float32
    acc = rng.integers(-1000, 1000, 2048).astype(F32)
    raw = [to_bf16(x) for x in (a, b)]
    want = acc + (a * b).reshape(-1, 2).sum(axis=1)
    check(run(isa, "dot_bf16", F32, *raw, acc), want)


def test_dot_bf16_without_hardware_is_two_fmas_high_half_first(isa: str) -> None:
    rng = np.random.default_rng(11)
    raw = [to_bf16(x) for x in rng.standard_normal((2, 4096)).astype(F32)]
    acc = rng.standard_normal(2048).astype(F32)
    a, b = map(from_bf16, raw)
    got = run(isa, "dot_bf16", F32, *raw, acc)
    if isa == "avx512bf16":
        # vdpbf16ps: two roundings of its own, each within half a unit of a term
        exact = acc + (a.astype(np.float64) * b).reshape(-1, 2).sum(axis=1)
        size = np.abs(acc) + np.abs(a.astype(np.float64) * b).reshape(-1, 2).sum(axis=1)
        assert np.all(np.abs(got.reshape(-1) - exact) <= 2 * 2.0**-24 * size)
        return
    fused = isa != "base"
    check(got, fma(a[0::2], b[0::2], fma(a[1::2], b[1::2], acc, fused), fused))


def test_unknown_words_levels_and_shapes_are_refused(isa: str) -> None:
    block = np.zeros((2, 64), np.uint8)
    with pytest.raises(ValueError, match="no word named blur"):
        native.simd_word(isa, "blur", block, block, block, block)
    with pytest.raises(ValueError, match=r"isa: expected one of base.*got pentium"):
        native.simd_word("pentium", "add", block, block, block, block)
    with pytest.raises(ValueError, match="as many vectors as out"):
        native.simd_word(isa, "add", block, block, block[:1], block)
