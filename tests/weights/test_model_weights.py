"""From a GGUF file to packed weights: every tensor checked, the file let go."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from octavo.errors import ModelFormatError, UnsupportedModelError, UsageError
from octavo.kernels import native
from octavo.model.registry import build_program
from octavo.program.ops import WeightSpec
from octavo.weights.gguf import GGUFFile
from octavo.weights.gguf_model_file import GGUFModelFile
from octavo.weights.model_header import ModelHeader
from octavo.weights.model_weights import load_weights, reference_weights
from octavo.weights.weight_view import WeightView
from tests.cli.tiny_model import write_tiny_model

POOL = native.ThreadPool(2)


def test_every_weight_of_the_program_is_packed_and_the_file_is_let_go(
    header: ModelHeader, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[str] = []
    monkeypatch.setattr(GGUFFile, "drop", lambda file, name: dropped.append(name))
    specs = build_program(header.config).weights()
    weights = load_weights(header, specs, POOL)
    assert set(weights.matrices) | set(weights.vectors) == set(specs)
    assert set(weights.row_kinds(None).values()) == {"af32"}
    exact = reference_weights(header, specs)
    for name, vector in weights.vectors.items():
        assert np.array_equal(vector, exact[name])
    maps = Path("/proc/self/maps").read_text()
    assert str(header.path) not in maps
    assert dropped == list(weights.matrices)  # each once it is packed, so that none is kept twice


@pytest.mark.parametrize(("asked", "kind"), [("bf16", "abf16"), ("f32", "af32")])
def test_weights_may_be_expanded(
    header: ModelHeader, asked: Literal["bf16", "f32"], kind: str
) -> None:
    weights = load_weights(header, build_program(header.config).weights(), POOL, asked=asked)
    assert set(weights.row_kinds(None).values()) == {kind}


def test_a_missing_tensor_and_a_wrong_shape_are_named(header: ModelHeader) -> None:
    missing = {"blk.9.attn_q.weight": WeightSpec("blk.9.attn_q.weight", (64, 64))}
    with pytest.raises(ModelFormatError, match=r"'blk.9.attn_q.weight' is missing.*\(64, 64\)"):
        load_weights(header, missing, POOL)
    wrong = {"blk.0.ffn_up.weight": WeightSpec("blk.0.ffn_up.weight", (96, 32))}
    said = r"at offset \d+: expected shape \(96, 32\), found \(96, 64\)"
    with pytest.raises(ModelFormatError, match=said):
        load_weights(header, wrong, POOL)


def test_a_weight_may_be_a_part_of_a_tensor(
    header: ModelHeader, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = {"attn_k": WeightView("attn_q", (range(32, 64),), of=64)}
    monkeypatch.setattr(GGUFModelFile, "views", lambda files, config: part)
    specs = build_program(header.config).weights()
    exact, packed = reference_weights(header, specs), load_weights(header, specs, POOL)
    assert np.array_equal(exact["blk.1.attn_k.weight"], exact["blk.1.attn_q.weight"][32:])
    k, q = (packed.matrices[f"blk.1.{name}.weight"].view() for name in ("attn_k", "attn_q"))
    assert np.array_equal(k, q[len(q) // 2 :])  # panels of 16 rows, one after the other
    assert header.weight_bytes(specs)["blk.1.attn_k.weight"] == 32 * 64 * 4
    with pytest.raises(UnsupportedModelError, match=r"'blk.0.attn_k.weight' .* has no place"):
        header.program()
    part["attn_k"] = WeightView("attn_q", (range(64, 96),), of=96)
    said = r"'blk.0.attn_q.weight' at offset \d+: expected shape \(96, 64\), found \(64, 64\)"
    with pytest.raises(ModelFormatError, match=said):
        load_weights(header, specs, POOL)
    part["attn_k"] = WeightView("attn_qkv", (range(64, 96),), of=128)
    said = r"'blk.0.attn_qkv.weight' is missing: expected shape \(128, 64\)"
    with pytest.raises(ModelFormatError, match=said):
        load_weights(header, specs, POOL)
    with pytest.raises(ModelFormatError, match=r"'blk.0.attn_qkv.weight' is missing"):
        header.weight_bytes(specs)


def test_a_file_that_changed_since_its_header_was_read_is_refused(header: ModelHeader) -> None:
    specs = build_program(header.config).weights()
    write_tiny_model(header.path, template=None)  # the tensors move
    with pytest.raises(ModelFormatError, match="changed since its header was read"):
        load_weights(header, specs, POOL)


def test_a_file_that_was_replaced_by_one_of_the_same_shapes_is_refused(header: ModelHeader) -> None:
    specs = build_program(header.config).weights()
    copy = header.path.with_name("copy")
    copy.write_bytes(header.path.read_bytes())
    copy.replace(header.path)
    said = f"^{re.escape(str(header.path))} changed while the model was loaded: load it again$"
    with pytest.raises(ModelFormatError, match=said):
        load_weights(header, specs, POOL)


def test_a_file_that_changes_while_it_is_packed_is_refused(
    header: ModelHeader, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = native.pack_weight

    def pack_and_touch(*args: object) -> native.PackedWeight:
        os.utime(header.path, ns=(1, 1))
        return pack(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(native, "pack_weight", pack_and_touch)
    with pytest.raises(ModelFormatError, match="changed"):
        load_weights(header, build_program(header.config).weights(), POOL)


def test_of_a_file_that_is_cut_while_it_is_packed_no_more_is_read(
    header: ModelHeader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading where it was would end the process."""
    packed, pack = list[str](), native.pack_weight

    def pack_and_cut(*args: object) -> native.PackedWeight:
        made = pack(*args)  # type: ignore[arg-type]
        packed.append(made.format)
        os.truncate(header.path, header.path.stat().st_size - 1)
        return made

    monkeypatch.setattr(native, "pack_weight", pack_and_cut)
    with pytest.raises(ModelFormatError, match="changed while the model was loaded: load it again"):
        load_weights(header, build_program(header.config).weights(), POOL)
    assert packed == ["F32"]


def test_activations_that_would_change_nothing_are_refused(header: ModelHeader) -> None:
    """The file is float32 throughout."""
    weights = load_weights(header, build_program(header.config).weights(), POOL)
    for activations in ("int8", "bf16"):
        said = f"activations='{activations}': no weight is in an int"
        with pytest.raises(UsageError, match=said):
            weights.row_kinds(activations)


def test_tables_of_rotary_frequencies_are_no_weights(header: ModelHeader) -> None:
    table = header.tensors["output_norm.weight"]
    names = ("rope_freqs.weight", "blk.0.attn_rot_embd.weight")
    more = replace(header, tensors={**header.tensors, **dict.fromkeys(names, table)})
    weights = load_weights(more, more.program().weights(), POOL)
    assert not set(names) & (set(weights.matrices) | set(weights.vectors))
