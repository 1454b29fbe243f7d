"""Loads the committed fixtures: tiny vocabularies as specs, the texts, golden ids."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from octavo.tokenizer import TokenizerSpec

FIXTURES = Path(__file__).parent / "fixtures"


def load_spec(name: str, **changes: Any) -> TokenizerSpec:
    """A tiny vocabulary, with some fields changed."""
    return replace(TokenizerSpec(**_load(name)), **changes)


def load_texts() -> list[str]:
    return list(_load("texts")["texts"])


def load_golden(name: str) -> list[tuple[str, list[int]]]:
    golden = _load(f"golden_{name}")
    return list(zip(golden["texts"], golden["ids"], strict=True))


def _load(name: str) -> dict[str, Any]:
    return json.loads((FIXTURES / f"{name}.json").read_text())  # type: ignore[no-any-return]
