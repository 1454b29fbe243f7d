"""The tokenizer and the embedding of one file must mean the same vocabulary."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from octavo.errors import ModelFormatError
from octavo.weights.gguf_model import read_header
from tests.cli.tiny_model import write_tiny_model


def test_a_vocabulary_of_another_size_than_the_embedding_is_refused(tmp_path: Path) -> None:
    header = read_header(write_tiny_model(tmp_path / "tiny.gguf"))
    assert len(header.tokenizer_spec().tokens) == 258
    more_rows = replace(header, config=replace(header.config, vocab_size=300))
    message = r"has 258 tokens, 'token_embd\.weight' has rows for 300"
    with pytest.raises(ModelFormatError, match=message):
        more_rows.tokenizer_spec()
