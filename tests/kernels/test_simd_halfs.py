"""The words of simd.h for f16 and bf16, each on every ISA level, against numpy, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from octavo.kernels import available_isas
from tests.kernels.exact import F32, Floats, fma, from_bf16, to_bf16
from tests.kernels.simd_words import check, run

pytestmark = pytest.mark.parametrize("isa", available_isas())


def test_loads_of_every_pattern(isa: str) -> None:
    halves = np.arange(2**16, dtype=np.uint16)
    blocks = np.pad(halves.reshape(-1, 16), ((0, 0), (0, 16)))
    check(run(isa, "load_f16", F32, blocks), halves.view(np.float16).astype(F32))
    check(run(isa, "load_bf16", F32, blocks), from_bf16(halves))


def around_ties() -> Iterator[Floats]:
    """Below, at and above the tie between two bf16, for every upper half."""
    for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
        yield (np.arange(2**16, dtype=np.uint32) << 16 | np.uint32(low)).view(F32)


def test_to_bf16_pair_rounds_ties_to_even_and_keeps_nan(isa: str) -> None:
    for values in around_ties():
        other = values[::-1].copy()
        want = to_bf16(values) | to_bf16(other).astype(np.uint32) << 16
        check(run(isa, "to_bf16_pair", np.uint32, values, other), want)


def test_store_bf16_rounds_as_to_bf16_pair_but_may_flush_denormals(isa: str) -> None:
    for values in around_ties():
        got = run(isa, "store_bf16", np.uint16, values)[:, :16].reshape(-1)
        want = to_bf16(values)
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
