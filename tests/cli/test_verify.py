"""`octavo verify` on a tiny model: the table, the object, and what the exit code says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from octavo.config import EngineConfig
from octavo.verification import Tamper
from tests.cli.result import Octavo
from tests.cli.tiny_model import TINY, VOCAB, write_tiny_model
from tests.weights.gguf_bytes import U32, entry, u32


def test_a_model_that_is_exact(octavo: Octavo) -> None:
    result = octavo("verify", TINY, "--threads", "2")
    first, *rows, last = result.out.splitlines()
    assert (result.code, result.err) == (0, "")
    assert first == "scenario              requests    rows          what happened"
    assert rows[0] == "alone                        7      84  ok      rows from pages 77"
    assert len(rows) == 18
    assert all("  ok  " in row for row in rows)
    assert last.endswith(": every bit equal")
    assert last.startswith("608,622 logits compared, in 2,359 rows ")


def test_json_has_the_same_in_an_object(octavo: Octavo) -> None:
    result = octavo("verify", TINY, "--threads", "2", "--kv-dtype", "k=f32,v=bf16", "--json")
    found = result.json
    assert (result.code, result.out.count("\n")) == (0, 1)
    assert "every bit equal" in result.err
    assert found["model"] == TINY
    assert (found["kv_dtype"], found["block_size"], found["threads"]) == ("k=f32,v=bf16", 32, 2)
    assert (found["exact"], found["logits_compared"]) == (True, 2359 * VOCAB)
    assert found["rows_compared"] == sum(s["rows"] for s in found["scenarios"])
    alone = found["scenarios"][0]
    assert alone | {"seconds": 0} == {
        "name": "alone", "requests": 7, "rows": 84, "events": {"rows from pages": 77},
        "seconds": 0, "difference": None, "problem": None, "ok": True,
    }  # fmt: skip


class OtherPages(Tamper):
    """K and V less exact than the reference's."""

    def config(self, config: EngineConfig) -> EngineConfig:
        return replace(config, kv_dtype="bf16")


def test_a_changed_bit_fails_saying_where(octavo: Octavo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octavo.verification.proof.Tamper", OtherPages)
    result = octavo("verify", TINY, "--kv-dtype", "f32", "--json")
    assert result.code == 1
    assert not result.json["exact"]
    assert "18 of 18 FAILED" in result.err
    alone = result.json["scenarios"][0]
    assert not alone["ok"]
    where = alone["difference"]
    assert (where["request"], where["position"]) == (0, 0)  # one token sees its own K and V
    assert where["largest"] > 0
    assert f"  {alone['problem']}\n" in result.err
    assert alone["problem"].startswith("request 0 (1 token), position 0: ")


def test_what_the_engine_would_refuse_is_bad_usage(octavo: Octavo) -> None:
    assert octavo("verify", TINY, "--block-size", "7").code == 2
    assert octavo("verify", TINY, "--no-kv-cache").code == 2  # a scenario, not a choice
    assert octavo("verify", "no-such.gguf").code == 1


def test_a_model_with_a_short_context_is_refused(octavo: Octavo, tmp_path: Path) -> None:
    short = entry("llama.context_length", U32, u32(64))
    path = write_tiny_model(tmp_path / "short.gguf", more=[short])
    result = octavo("verify", str(path))
    why = "verify needs a context of at least 128 tokens, the model has 64"
    assert (result.code, result.err) == (2, f"octavo: {why}\n")


@pytest.mark.parametrize("block_size", ["16", "64"])
def test_the_block_size_is_a_choice(octavo: Octavo, block_size: str) -> None:
    found = octavo("verify", TINY, "--block-size", block_size, "--json")
    assert found.code == 0
    assert "blocks of 32" in [s["name"] for s in found.json["scenarios"]]
