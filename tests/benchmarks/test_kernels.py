"""The kernels that are held against the machine: none is left out, and a ratio is what it says."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.kernel_cases import Case, Limits, cases
from benchmarks.kernels import line, measure
from octavo.kernels import KV_FORMATS, available_isas, default_isa, native
from tests.kernels.gguf_blocks import TYPE_OF


def test_every_format_is_measured_at_every_size() -> None:
    names = [case.kernel for case in cases(default_isa(), rows=(1, 7))]
    assert len(set(names)) == len(names)
    wanted = {f"{name} x {rows}" for name in TYPE_OF for rows in (1, 7)}
    wanted |= {f"attention {kv} {d} x {n}" for kv in KV_FORMATS for d in (64, 128) for n in (3, 48)}
    wanted |= {
        f"attention bf16 {dims} x 48" for dims in ("512", "576/512", "64 slopes", "64 rounded")
    }
    assert wanted - set(names) == set()


@pytest.mark.parametrize("isa", available_isas())
def test_every_level_has_the_limits_that_its_cases_name(isa: str) -> None:
    limits = Limits(isa)
    for limit in {case.limit for case in cases(isa, rows=(1,))}:
        assert limits.speed(limit) > 0


def test_a_ratio_is_speed_over_limit_and_the_spread_is_of_ratios() -> None:
    seconds = iter([1.0, 2.0, 4.0, 1.0, 1.0, 2.0, 2.0])

    class Still(Limits):
        def speed(self, limit: str) -> float:
            return {"int8": 200.0}[limit]

    isa = default_isa()
    found = measure(isa, Still(isa), Case("W8 x 1", "int8", 100.0, lambda: next(seconds)))
    assert (found.ratio, found.speed, found.spread) == (0.25, 50.0, (0.5 - 0.125) / 0.25)
    assert line(found).split()[:6] == [isa, "W8", "x", "1", "25.0%", "of"]


def test_packing_is_timed_and_refuses_what_makes_no_sense() -> None:
    (packing,) = [c for c in cases(default_isa(), rows=()) if c.kernel == "quantise A32"]
    assert 0 < packing.seconds() < 1
    with pytest.raises(ValueError, match="repeats: expected at least 1"):
        native.time_quantize(default_isa(), np.zeros((1, 32), np.float32), "A32", 0)
