"""What verbs say of a model whose layers have embeddings of their own and whose last layers store
no K and V: which bytes stay in the file, and that a token's K and V are counted once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.result import Octavo, refused
from tests.families.directories import golden_of, write_directory

ROW = 7 * 32 * 2  # bytes of a token's embeddings of 7 layers
TABLE = 131 * ROW
# Of 4 layers that store: a full one with 2 KV heads of 64, and 3 windowed ones with 2 of 32.
FULL, WINDOWED = 1 * 2 * 64 * 2 * 2, 3 * 2 * 32 * 2 * 2


@pytest.fixture
def model(tmp_path: Path) -> str:
    golden = golden_of("gemma4")
    return str(write_directory(tmp_path / "m", "gemma4", golden["shapes"], golden["seed"]))


def test_inspect_says_what_stays_in_the_file_and_what_is_counted_once(
    octavo: Octavo, model: str
) -> None:
    text = octavo("inspect", model).out
    said = "57.3 KiB, which stay in the file: rows are read as they come\n"
    assert f"embeddings of layers  {said}" in text
    assert "7, hidden 96, FFN 160, of the last 3 320\n" in text
    assert "; the last 3 layers read earlier ones'\n" in text
    found = octavo("inspect", model, "--json").json
    assert found["in_file_bytes"] == TABLE
    assert found["kv_bytes_per_token"] == FULL + WINDOWED
    assert found["kv_bytes_per_token_beyond_window"] == FULL
    assert found["ffn_size_without_kv"] == 320
    values = found["parameters"] - TABLE // 2
    matrices = found["weight_bytes"]["f32"]  # panels are filled up to 16 rows
    assert values * 4 <= matrices < values * 4 * 1.1


def test_plan_counts_none_of_it_as_memory(octavo: Octavo, model: str) -> None:
    result = octavo("plan", model, "--weights", "f32", "--json")
    found = result.json
    assert found["in_file_bytes"] == TABLE
    assert found["kv_bytes_per_token"] == FULL + WINDOWED
    whole = found["weight_bytes"] + found["process_bytes"] + found["kv_bytes"]
    assert found["total_bytes"] == whole
    assert "; 57.3 KiB of layers' embeddings stay in the file" in result.err
    dense = octavo("plan", "--layers", "2", "--hidden", "64", "--ffn", "96", "--vocab", "258")
    assert "in the file" not in dense.out


def test_explain_counts_a_row_of_it_and_each_layer_that_reads_pages(
    octavo: Octavo, model: str
) -> None:
    text = octavo("explain", model).out
    assert "Embeddings of layers: 57.3 KiB stay in the file, of which a token reads 448 B." in text
    assert "K and V: the last 3 layers store none; they read what the last layers" in text
    found = octavo("explain", model, "--context", "100", "--json").json
    assert found["kv_bytes_per_token"] == FULL + WINDOWED
    # 3 full layers see 100 tokens, 4 windowed ones 24; one token is written by the 4 that store.
    read = 3 * FULL * 100 + 4 * WINDOWED // 3 * 24
    assert found["decode"]["with_cache"]["attention"]["kv_bytes"] == read + FULL + WINDOWED


def test_its_kv_heads_are_not_changed(octavo: Octavo, model: str, tmp_path: Path) -> None:
    to = str(tmp_path / "to")
    said = f"{model}: KV heads cannot be changed where layers differ in size"
    assert octavo("convert", model, to, "--kv-heads", "1") == refused(said, code=1)
    assert not Path(to).exists()
