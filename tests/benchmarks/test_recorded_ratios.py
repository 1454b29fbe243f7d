"""Ratios of kernels against the recorded ones: what is too low, and what is written down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.recorded_ratios import RECORDED, Low, Recorded, cpu_family, too_low

INTEL = "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 207\nmodel name\t: Xeon\n"
ARM = "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd4f\n"


def test_a_kernel_is_too_slow_below_65_percent_of_its_record() -> None:
    recorded = {"fast": 0.8, "slow": 0.8, "edge": 1.0}
    found = {"fast": 0.9, "slow": 0.5, "edge": 0.65, "new": 0.01}
    (low,) = too_low(found, recorded)
    assert low == Low("slow", 0.5, 0.8)
    assert str(low) == "slow: 50.0% of its limit, recorded 80.0%; expected at least 52.0%"


def test_only_what_has_no_record_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "recorded" / "kernels.json"
    assert Recorded(path).add("GenuineIntel 6 207", "avx2", {"a": 0.51239}) == ["a"]
    again = Recorded(path)
    assert again.of("GenuineIntel 6 207", "avx2") == {"a": 0.5124}
    assert again.of("GenuineIntel 6 207", "avx512") == {}
    before = path.read_bytes()
    assert again.add("GenuineIntel 6 207", "avx2", {"a": 0.9}) == []
    assert path.read_bytes() == before
    assert again.add("GenuineIntel 6 207", "avx2", {"a": 0.9, "b": 0.2}) == ["b"]
    assert json.loads(path.read_text()) == {"GenuineIntel 6 207 avx2": {"a": 0.5124, "b": 0.2}}


@pytest.mark.parametrize(
    ("text", "family"), [(INTEL * 2, "GenuineIntel 6 207"), (ARM, "0x41 8 0xd4f")]
)
def test_a_cpu_is_named_by_vendor_family_and_model(tmp_path: Path, text: str, family: str) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert cpu_family(path) == family


def test_a_cpu_without_names_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\n")
    with pytest.raises(ValueError, match="expected vendor_id, cpu family, model or CPU implem"):
        cpu_family(path)


def test_the_records_of_the_repository_are_shares() -> None:
    entries = json.loads(RECORDED.read_text())
    assert entries
    for key, ratios in entries.items():
        assert len(key.split()) == 4, key
        assert all(0 < ratio < 4 for ratio in ratios.values()), key
