"""The probe on this machine: figures that are figures, and arguments that make no sense."""

from __future__ import annotations

import numpy as np
import pytest

from octavo.bench.native_probe import NativeProbe
from octavo.kernels import available_isas, default_isa, native


def test_a_reading_has_both_figures() -> None:
    reading = NativeProbe(default_isa(), threads=2).read()
    assert 1e6 < reading.bytes_per_second < 1e13
    assert 1e6 < reading.ops_per_second < 1e15


@pytest.mark.parametrize("isa", available_isas())
def test_every_level_has_a_peak(isa: str) -> None:
    pool = native.ThreadPool(1)
    assert native.integer_peak(isa, pool, 1000) > 0
    assert native.float_peak(isa, pool, 1000) > 0
    bf16 = native.bf16_peak(isa, pool, 1000)
    assert (bf16 is not None and bf16 > 0) if isa == "avx512bf16" else bf16 is None


def test_arguments_that_make_no_sense_are_refused() -> None:
    pool, isa = native.ThreadPool(2), default_isa()
    with pytest.raises(ValueError, match="512 bytes a thread"):
        native.read_bandwidth(isa, pool, np.zeros(1023, np.uint8), 1)
    with pytest.raises(ValueError, match="repeats"):
        native.read_bandwidth(isa, pool, np.zeros(1024, np.uint8), 0)
    with pytest.raises(ValueError, match="iterations"):
        native.integer_peak(isa, pool, 0)
    with pytest.raises(ValueError, match="iterations"):
        native.float_peak(isa, pool, 0)
    with pytest.raises(ValueError, match="isa: expected one of"):
        native.integer_peak("avx1024", pool, 1)
