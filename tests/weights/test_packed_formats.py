"""What weights are packed as: quantised at load where that is asked for, and never twice."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants

from octavo.config import PACKED_WEIGHTS
from octavo.errors import ModelFormatError, UsageError
from octavo.kernels import native
from octavo.model.registry import build_program
from octavo.weights.ggml_type import GGMLType
from octavo.weights.model_header import ModelHeader, read_header
from octavo.weights.model_weights import load_weights, reference_weights
from octavo.weights.packed_formats import choices, packed_bytes, packed_formats
from tests.families.checkpoints import weights
from tests.tiny import TINY
from tests.weights.hf.written import Dtype, write_model

POOL = native.ThreadPool(2)
CONFIG = replace(TINY, vocab_size=131, rope_style="half", qkv_bias=False)
VOCABULARY = ("token_embd.weight", "output.weight")


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("asked", ["w8", "w4"])
def test_matrices_are_quantised_as_gguf_does_it_and_the_vocabulary_to_eight_bits(
    asked: Literal["w8", "w4"], dtype: Dtype, tmp_path: Path
) -> None:
    header = read_header(write_model(tmp_path / "dir", CONFIG, weights(CONFIG), dtype=dtype))
    specs = header.program().weights()
    exact, loaded = reference_weights(header, specs), load_weights(header, specs, POOL, asked=asked)
    assert set(VOCABULARY) < set(loaded.matrices)
    assert set(loaded.row_kinds(None).values()) == {"a32"}
    for name, matrix in loaded.matrices.items():
        is_w8 = asked == "w8" or name in VOCABULARY
        type, format = (GGMLType.Q8_0, "W8") if is_w8 else (GGMLType.Q4_0, "W4S")
        blocks = quants.quantize(exact[name], GGMLQuantizationType(type)).reshape(-1)
        rows, cols = exact[name].shape
        by_hand = native.pack_weight(POOL, blocks, type, rows, cols, format)
        assert matrix.format == format
        assert np.array_equal(matrix.view(), by_hand.view()), name
    for name, vector in loaded.vectors.items():
        assert np.array_equal(vector, exact[name])


def test_bytes_are_known_before_anything_is_loaded(header: ModelHeader) -> None:
    specs = header.program().weights()
    found = choices(header, specs)
    assert list(found) == [None, *PACKED_WEIGHTS]
    for asked, each in found.items():
        loaded = load_weights(header, specs, POOL, asked=asked)
        assert each == packed_bytes(header, specs, asked)
        assert loaded.nbytes() == sum(each.values())


@pytest.mark.parametrize("asked", ["w8", "w4"])
def test_what_is_quantised_already_is_not_quantised_again(
    header: ModelHeader, asked: Literal["w8", "w4"]
) -> None:
    name = "blk.0.ffn_down.weight"
    info = replace(header.tensors[name], type=GGMLType.Q8_0)
    mixed = replace(header, tensors={**header.tensors, name: info})
    said = rf"weights='{asked}': .*tensor '{name}' .* is Q8_0, quantised already: .* leave weights"
    with pytest.raises(UsageError, match=said):
        packed_formats(mixed, header.program().weights(), asked)
    assert list(choices(mixed, header.program().weights())) == [None, "bf16", "f32"]


def test_rows_that_are_no_whole_blocks_are_refused(tmp_path: Path) -> None:
    odd = replace(CONFIG, ffn_size=100)
    header = read_header(write_model(tmp_path / "dir", odd, weights(odd)))
    said = r"weights='w8': .*down_proj.* has rows of 100 values, and 32 share a scale: take bf16"
    with pytest.raises(UsageError, match=said):
        packed_formats(header, header.program().weights(), "w8")


def test_a_value_that_cannot_be_quantised_names_its_tensor(tmp_path: Path) -> None:
    drawn = weights(CONFIG)
    drawn["blk.1.attn_k.weight"][3, 5] = np.inf
    header = read_header(write_model(tmp_path / "dir", CONFIG, drawn))
    said = r"layers\.1\.self_attn\.k_proj.* has values that are not finite, or too large"
    with pytest.raises(ModelFormatError, match=said):
        load_weights(header, header.program().weights(), POOL, asked="w4")


_PEAK = """
import sys
from pathlib import Path
from octavo.kernels import native
from octavo.weights.model_weights import load_weights
from octavo.weights.model_header import read_header

def kib(field):
    line = next(l for l in open("/proc/self/status") if l.startswith(field))
    return int(line.split()[1])

pool, header = native.ThreadPool(2), read_header(Path(sys.argv[1]))
specs = header.program().weights()
before = kib("VmRSS")
weights = load_weights(header, specs, pool, asked=sys.argv[2])
print((kib("VmHWM") - before) * 1024, weights.nbytes())
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """110 MB of bf16, its largest tensors 2.4 MB."""
    config = replace(CONFIG, num_layers=16, hidden_size=768, ffn_size=1536, heads=8, head_dim=96)
    pattern = np.random.default_rng(1).integers(-127, 128, 1 << 16) / np.float32(128)
    specs = build_program(config).weights()
    values = {n: np.resize(pattern, s.shape).astype(np.float32) for n, s in specs.items()}
    return write_model(tmp_path_factory.mktemp("large") / "dir", config, values, dtype="BF16")


@pytest.mark.parametrize("asked", ["w8", "w4"])
def test_loading_takes_the_weights_and_one_tensor_more(asked: str, large: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _PEAK, str(large), asked], capture_output=True, text=True, check=True
    )
    peak, nbytes = map(int, run.stdout.split())
    assert nbytes < peak <= 1.1 * nbytes + 1536 * 768 * 2
