"""From a GGUF file to packed weights: every tensor checked, the file let go."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from octavo.errors import ModelFormatError, UsageError
from octavo.kernels import native
from octavo.model.registry import build_program
from octavo.program.ops import WeightSpec
from octavo.weights.gguf import GGUFFile
from octavo.weights.gguf_model import load_weights, reference_weights
from octavo.weights.model_header import read_header
from tests.cli.tiny_model import write_tiny_model

POOL = native.ThreadPool(2)


def test_every_weight_of_the_program_is_packed_and_the_file_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[str] = []
    monkeypatch.setattr(GGUFFile, "drop", lambda file, name: dropped.append(name))
    path = write_tiny_model(tmp_path / "tiny.gguf")
    header = read_header(path)
    specs = build_program(header.config).weights()
    weights = load_weights(header, specs, POOL)
    assert set(weights.matrices) | set(weights.vectors) == set(specs)
    assert set(weights.row_kinds(None).values()) == {"af32"}
    exact = reference_weights(header, specs)
    for name, vector in weights.vectors.items():
        assert np.array_equal(vector, exact[name])
    maps = Path("/proc/self/maps").read_text()
    assert str(path) not in maps
    assert dropped == list(weights.matrices)  # each once it is packed, so that none is kept twice


@pytest.mark.parametrize(("expand", "kind"), [("bf16", "abf16"), ("f32", "af32")])
def test_weights_may_be_expanded(tmp_path: Path, expand: Literal["bf16", "f32"], kind: str) -> None:
    header = read_header(write_tiny_model(tmp_path / "tiny.gguf"))
    specs = build_program(header.config).weights()
    assert set(load_weights(header, specs, POOL, expand=expand).row_kinds(None).values()) == {kind}


def test_a_missing_tensor_and_a_wrong_shape_are_named(tmp_path: Path) -> None:
    header = read_header(write_tiny_model(tmp_path / "tiny.gguf"))
    missing = {"blk.9.attn_q.weight": WeightSpec("blk.9.attn_q.weight", (64, 64))}
    with pytest.raises(ModelFormatError, match=r"'blk.9.attn_q.weight' is missing.*\(64, 64\)"):
        load_weights(header, missing, POOL)
    wrong = {"blk.0.ffn_up.weight": WeightSpec("blk.0.ffn_up.weight", (96, 32))}
    with pytest.raises(
        ModelFormatError, match=r"at offset \d+: expected shape \(96, 32\), found \(96, 64\)"
    ):
        load_weights(header, wrong, POOL)


def test_a_file_that_changed_since_its_header_was_read_is_refused(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf")
    header = read_header(path)
    specs = build_program(header.config).weights()
    write_tiny_model(path, template=None)  # the tensors move
    with pytest.raises(ModelFormatError, match="changed since its header was read"):
        load_weights(header, specs, POOL)


def test_a_file_that_changes_while_it_is_packed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf")
    header = read_header(path)
    pack = native.pack_weight

    def pack_and_touch(*args: object) -> native.PackedWeight:
        os.utime(path, ns=(1, 1))
        return pack(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(native, "pack_weight", pack_and_touch)
    with pytest.raises(ModelFormatError, match="changed"):
        load_weights(header, build_program(header.config).weights(), POOL)


def test_activations_that_would_change_nothing_are_refused(tmp_path: Path) -> None:
    header = read_header(write_tiny_model(tmp_path / "tiny.gguf"))  # float32 throughout
    weights = load_weights(header, build_program(header.config).weights(), POOL)
    for activations in ("int8", "bf16"):
        with pytest.raises(
            UsageError, match=f"activations='{activations}': no weight is in an int"
        ):
            weights.row_kinds(activations)
