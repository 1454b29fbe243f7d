"""What verbs say of heads and of K and V where the pages keep latent rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.result import Octavo
from tests.families.directories import golden_of, write_directory


@pytest.fixture
def model(tmp_path: Path) -> str:
    golden = golden_of("deepseek2")
    return str(write_directory(tmp_path / "m", "deepseek2", golden["shapes"], golden["seed"]))


def test_inspect_says_how_wide_the_row_of_all_heads_is(octavo: Octavo, model: str) -> None:
    assert "heads          3 of 40, one latent row of 80\n" in octavo("inspect", model).out
    found = octavo("inspect", model, "--json").json
    assert (found["heads"], found["kv_heads"], found["head_dim"]) == (3, 1, 40)
    assert found["latent_row"] == 80
    assert found["kv_bytes_per_token"] == 3 * 80 * 2  # V is read from K


def test_explain_names_the_row_beside_the_heads(octavo: Octavo, model: str) -> None:
    text = " ".join(octavo("explain", model, "--context", "64").out.split())
    assert "hidden 96, 3 heads of 40 and one latent row of 80, FFN 160" in text
