"""What the tests' own fixtures promise."""

from __future__ import annotations

from pathlib import Path

from octavo import LLM
from octavo.environment import home
from tests.serving.test_pack_keeper import keepers


def test_no_test_maps_packed_weights_or_leaves_some_in_the_users_home(
    smollm2_path: Path, users_home: Path
) -> None:
    """Tests of a changed packing passed on what the last run had kept."""
    assert home() != users_home
    before = keepers()
    llm = LLM(smollm2_path, threads=1, context=64)
    assert not llm.info.weights_mapped
    assert keepers() == before
