"""/health of a model whose KV dtype was measured as not safe."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo.weights import kv_verdicts
from octavo.weights.fingerprint import fingerprint
from tests.server.live import Live


def test_a_dtype_that_was_not_safe_is_named(
    tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path))
    found = {"bf16": {"verdict": "not safe"}}  # the dtype of this server
    kv_verdicts.keep(tmp_path, fingerprint(tiny_path, home=tmp_path), found)
    with Live(tiny_path) as server:
        health = server.get("/health").json
    assert health["status"] == "ok"
    assert health["warning"].startswith("kv_dtype=bf16 was measured as not safe for this model")
