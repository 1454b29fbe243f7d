"""What verbs say of a model with experts: how many, and which bytes a token alone reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.result import Octavo, refused
from tests.families.directories import golden_of, write_directory

# 3 layers of 4 experts, of which a token uses 1: 96 wide, FFN 64.
EXPERT = 3 * 64 * 96
UNREAD = 3 * 3 * EXPERT


@pytest.fixture
def model(tmp_path: Path) -> str:
    golden = golden_of("mixtral-windowed")
    path = tmp_path / "mixtral"
    return str(write_directory(path, "mixtral-windowed", golden["shapes"], golden["seed"]))


def test_inspect_tells_experts_and_what_a_token_reads(octavo: Octavo, model: str) -> None:
    text = octavo("inspect", model).out
    assert "experts        4 of FFN 64 in 3 layers, a token uses 1\n" in text
    assert "\na token reads  as stored " in text
    found = octavo("inspect", model, "--json").json
    assert found["experts"] == {
        "count": 4, "used": 1, "ffn_size": 64, "layers": 3, "shared_ffn_size": 0,
    }  # fmt: skip
    for asked, nbytes in (("bf16", 2), ("f32", 4)):
        unread = found["weight_bytes"][asked] - found["active_weight_bytes"][asked]
        assert unread == UNREAD * nbytes


def test_inspect_of_a_model_without_experts_has_none(octavo: Octavo, tmp_path: Path) -> None:
    golden = golden_of("mistral")
    path = str(write_directory(tmp_path, "mistral", golden["shapes"], golden["seed"]))
    assert "experts" not in octavo("inspect", path).out
    found = octavo("inspect", path, "--json").json
    assert found["experts"] is None
    assert found["active_weight_bytes"] == found["weight_bytes"]


def test_an_mlp_beside_experts_is_shown(octavo: Octavo, tmp_path: Path) -> None:
    golden = golden_of("granitemoe-shared")
    path = str(write_directory(tmp_path, "granitemoe-shared", golden["shapes"], golden["seed"]))
    said = "6 of FFN 32 in 3 layers, a token uses 3; beside them FFN 112\n"
    assert f"experts        {said}" in octavo("inspect", path).out


def test_plan_tells_both(octavo: Octavo, model: str) -> None:
    result = octavo("plan", model, "--weights", "f32", "--json")
    found = result.json
    assert found["weight_bytes"] - found["active_weight_bytes"] == UNREAD * 4
    assert ", of which a token alone reads " in result.err
    dense = octavo("plan", "--layers", "2", "--hidden", "64", "--ffn", "96", "--vocab", "258")
    assert "a token alone" not in dense.out


def test_explain_tells_both_and_counts_what_is_read(octavo: Octavo, model: str) -> None:
    text = octavo("explain", model).out
    assert "\nExperts: 1 of 4 in 3 layers. A token alone reads " in text
    found = octavo("explain", model, "--json").json["decode"]["with_cache"]["mlp"]
    router = 3 * 4 * 96
    assert found["weight_bytes"] == 2 * (3 * EXPERT + router)


def test_a_model_with_experts_is_not_converted(octavo: Octavo, model: str, tmp_path: Path) -> None:
    to = str(tmp_path / "to")
    said = f"{model}: KV heads cannot be changed in a model with experts"
    assert octavo("convert", model, to, "--kv-heads", "2") == refused(said, code=1)
    assert not Path(to).exists()
