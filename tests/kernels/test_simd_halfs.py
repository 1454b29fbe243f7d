"""The words of simd.h for f16 and bf16, each on every ISA level, against numpy, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from octavo.kernels import available_isas
from tests.kernels.exact import fma32
from tests.kernels.simd_words import F32, check_floats, check_ints, run

pytestmark = pytest.mark.parametrize("isa", available_isas())


def test_load_f16_of_every_pattern(isa):
    halves = np.arange(2**16, dtype=np.uint16).reshape(-1, 16)
    blocks = np.zeros((halves.shape[0], 32), np.uint16)
    blocks[:, :16] = halves
    check_floats(run(isa, "load_f16", F32, blocks), halves.view(np.float16).astype(F32).reshape(-1))


def test_load_bf16_of_every_pattern(isa):
    halves = np.arange(2**16, dtype=np.uint16).reshape(-1, 16)
    blocks = np.zeros((halves.shape[0], 32), np.uint16)
    blocks[:, :16] = halves
    want = (halves.astype(np.uint32) << 16).reshape(-1)
    check_floats(run(isa, "load_bf16", F32, blocks), want.view(F32))


def bf16_bits(values):
    bits = values.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint32)


def test_to_bf16_pair_rounds_ties_to_even_and_keeps_nan(isa):
    high = np.arange(2**16, dtype=np.uint32) << 16
    for low in (
        0,
        1,
        0x7FFF,
        0x8000,
        0x8001,
        0xFFFF,
    ):  # below, at and above the tie, for every upper half
        values = (high | np.uint32(low)).view(F32)
        other = values[::-1].copy()
        want = bf16_bits(values) | bf16_bits(other) << np.uint32(16)
        check_ints(run(isa, "to_bf16_pair", np.uint32, values, other), want)


def test_store_bf16_rounds_as_to_bf16_pair_but_may_flush_denormals(isa):
    high = np.arange(2**16, dtype=np.uint32) << 16
    for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
        values = (high | np.uint32(low)).view(F32)
        got = run(isa, "store_bf16", np.uint16, values)[:, :16].reshape(-1)
        want = bf16_bits(values).astype(np.uint16)
        denormal = (np.abs(values) < 2.0**-126) & (values != 0)
        flushed = denormal & (got == (want & 0x8000))
        nan = np.isnan(values) & ((got & 0x7FFF) > 0x7F80)  # its payload is the level's own
        check_ints(np.where(flushed | nan, want, got), want)


def test_dot_bf16_on_exact_sums_is_the_same_everywhere(isa):
    rng = np.random.default_rng(10)
    a, b = rng.integers(-128, 129, (2, 4096)).astype(F32)  # products and sums are exact in float32
    acc = rng.integers(-1000, 1000, 2048).astype(F32)
    raw = [bf16_bits(x).astype(np.uint16) for x in (a, b)]
    want = acc + (a * b).reshape(-1, 2).sum(axis=1)
    check_floats(run(isa, "dot_bf16", F32, *raw, acc), want)


def test_dot_bf16_without_hardware_is_two_fmas_high_half_first(isa):
    rng = np.random.default_rng(11)
    a, b = (bf16_bits(x) << np.uint32(16) for x in rng.standard_normal((2, 4096)).astype(F32))
    acc = rng.standard_normal(2048).astype(F32)
    raw = [(x >> 16).astype(np.uint16) for x in (a, b)]
    a, b = a.view(F32), b.view(F32)
    got = run(isa, "dot_bf16", F32, *raw, acc)
    if (
        isa == "avx512bf16"
    ):  # vdpbf16ps: two roundings of its own, each within half a unit of a term
        exact = acc + (a.astype(np.float64) * b).reshape(-1, 2).sum(axis=1)
        size = np.abs(acc) + np.abs(a.astype(np.float64) * b).reshape(-1, 2).sum(axis=1)
        assert np.all(np.abs(got.reshape(-1) - exact) <= 2 * 2.0**-24 * size)
        return
    step = (lambda p, q, r: p * q + r) if isa == "base" else fma32
    check_floats(got, step(a[0::2], b[0::2], step(a[1::2], b[1::2], acc)))
