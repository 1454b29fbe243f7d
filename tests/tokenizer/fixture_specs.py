"""Loads the committed fixtures: tiny vocabularies, the texts, golden ids."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from octavo.tokenizer import Tokenizer, TokenizerSpec, TokenType

FIXTURES = Path(__file__).parent / "fixtures"


def load_spec(name: str, **changes: Any) -> TokenizerSpec:
    """A tiny vocabulary, with some fields changed."""
    return replace(TokenizerSpec(**_load(name)), **changes)


def with_pieces(
    spec: TokenizerSpec, *pieces: str, kind: TokenType = TokenType.NORMAL, score: float = 0.0
) -> TokenizerSpec:
    """The vocabulary with some more at its end."""
    scores = None if spec.scores is None else [*spec.scores, *[score] * len(pieces)]
    types = [*spec.token_types, *[kind] * len(pieces)]
    return replace(spec, tokens=[*spec.tokens, *pieces], token_types=types, scores=scores)


def load_tokenizer(name: str, **changes: Any) -> Tokenizer:
    return Tokenizer.from_spec(load_spec(name, **changes))


def load_texts() -> list[str]:
    return list(_load("texts")["texts"])


def load_golden(name: str) -> list[tuple[str, list[int]]]:
    golden = _load(f"golden_{name}")
    return list(zip(golden["texts"], golden["ids"], strict=True))


def _load(name: str) -> dict[str, Any]:
    return json.loads((FIXTURES / f"{name}.json").read_text())  # type: ignore[no-any-return]


BPE, SPM = load_tokenizer("tiny_bpe"), load_tokenizer("tiny_spm")
both = pytest.mark.parametrize("tokenizer", [BPE, SPM], ids=["bpe", "spm"])
