"""A tensor of the file that the program would not read is refused, not left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from octavo.errors import UnsupportedModelError
from octavo.kernels import native
from octavo.weights.gguf_model import load_weights
from octavo.weights.model_header import read_header
from tests.cli.tiny_model import write_tiny_model


def test_a_file_with_more_layers_than_it_says_is_refused(tmp_path: Path) -> None:
    """It used to run with the layers that were said, and answer nonsense."""
    header = read_header(write_tiny_model(tmp_path / "tiny.gguf"))
    fewer = replace(header, config=replace(header.config, num_layers=1))
    message = r"'blk\.1\.attn_norm\.weight' at offset \d+ has no place in the 1 layer of a llama"
    with pytest.raises(UnsupportedModelError, match=message):
        fewer.program()


def test_tables_of_rotary_frequencies_are_no_weights(tmp_path: Path) -> None:
    header = read_header(write_tiny_model(tmp_path / "tiny.gguf"))
    table = header.tensors["output_norm.weight"]
    names = ("rope_freqs.weight", "blk.0.attn_rot_embd.weight")
    more = replace(header, tensors={**header.tensors, **dict.fromkeys(names, table)})
    weights = load_weights(more, more.program().weights(), native.ThreadPool(1))
    assert not set(names) & (set(weights.matrices) | set(weights.vectors))
