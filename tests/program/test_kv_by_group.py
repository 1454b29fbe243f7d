"""K and V in one dtype where rows see all tokens, in another where they see a window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.batch import FloatArray
from octavo.bench.kv_dtype import BY_WINDOW, dtypes_of
from octavo.bench.kv_dtype import DTYPES as OF_ALL
from octavo.config import EngineConfig
from octavo.errors import UsageError
from octavo.kernels import KV_FORMATS, native
from octavo.planning.memory import page_formats
from octavo.program.kv_bytes import kv_bytes_by_group
from octavo.serving.llm import LLM
from octavo.weights.ggml_type import GGMLType
from tests.cli.tiny_model import write_tiny_model
from tests.engine.tiny_engine import add, run, tiny_engine
from tests.exactness.programs import Grouped, build, windowed
from tests.program.test_native_groups import two_groups
from tests.tiny import TinyModel, all_logits, make_runner, random_model

POOL = native.ThreadPool(2)
WINDOWED = random_model(two_groups(), POOL, type=GGMLType.F32)
ALL_WINDOWED = random_model(build(Grouped((windowed(20),), 4, 300)), POOL, type=GGMLType.F32)
TOKENS = np.random.default_rng(3).integers(1, 290, 200).tolist()
DTYPES = ["full=int8,window=bf16", "full=int4,window=f32", "full=bf16,window=int4"]


@pytest.mark.parametrize("kv_dtype", DTYPES)
def test_each_group_has_pages_of_its_own_dtype(kv_dtype: str) -> None:
    runner = make_runner(WINDOWED, POOL, kv_dtype=kv_dtype)
    config, program = EngineConfig(kv_dtype=kv_dtype), WINDOWED.program
    formats = page_formats(program, config)
    per_token = kv_bytes_by_group(program, formats)
    for spec, layout, nbytes in zip(program.groups, runner.layouts, per_token, strict=False):
        wanted = config.kv_dtypes.window if spec.window else config.kv_dtypes.full
        assert (layout.k_format, layout.v_format) == wanted
        assert formats.of(spec) == tuple(KV_FORMATS[name] for name in wanted)
        assert 0 < 32 * nbytes <= layout.block_stride


@pytest.mark.parametrize("dtype", ["int8", "int4", "f32"])
def test_where_all_layers_have_a_window_bits_are_those_of_its_dtype(dtype: str) -> None:
    def logits(kv_dtype: str) -> FloatArray:
        return all_logits(make_runner(ALL_WINDOWED, POOL, kv_dtype=kv_dtype), TOKENS[:120])

    assert np.array_equal(logits(f"full=bf16,window={dtype}"), logits(dtype))
    assert not np.array_equal(logits(dtype), logits("bf16"))


def answer_of(model: TinyModel, kv_dtype: str, prompts: list[list[int]]) -> list[list[int]]:
    engine = tiny_engine(model, POOL, num_blocks=60, max_rows=40, kv_dtype=kv_dtype)
    asked = [add(engine, each, max_tokens=12, temperature=0, ignore_eos=True) for each in prompts]
    run(engine)
    return [request.branches[0].tokens for request in asked]


@pytest.mark.parametrize("kv_dtype", DTYPES)
def test_answers_together_in_chunks_and_behind_a_prefix_are_those_alone(kv_dtype: str) -> None:
    prompts = [TOKENS[:90], TOKENS[:130], TOKENS[50:60]]
    alone = [answer_of(WINDOWED, kv_dtype, [each])[0] for each in prompts]
    assert answer_of(WINDOWED, kv_dtype, prompts) == alone
    engine = tiny_engine(WINDOWED, POOL, num_blocks=60, max_rows=40, kv_dtype=kv_dtype)
    for prompt, want in zip(prompts[:2], alone[:2], strict=True):
        request = add(engine, prompt, max_tokens=12, temperature=0, ignore_eos=True)
        run(engine)
        assert request.branches[0].tokens == want
    assert request.cache is not None
    assert request.cache.matched_tokens >= 64


def test_a_model_without_windows_says_so(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf")
    said = "full=int8,window=bf16: this model has no layers with a window: expected kv_dtype=int8"
    with pytest.raises(UsageError, match=said):
        LLM(path, threads=1, kv_dtype="full=int8,window=bf16")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"kv_dtype": "full=int8,window=bf16"},
            "full=int8,window=bf16: this model has a window in all layers: expected kv_dtype=bf16",
        ),
        (
            {"kv_dtype": "int4", "kv_sinks": 4},
            "kv_sinks=4: this model has a window in all layers, and only layers that see all",
        ),
    ],
)
def test_a_model_whose_layers_all_have_a_window_says_so(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        page_formats(ALL_WINDOWED.program, EngineConfig.parse(options))
    assert page_formats(WINDOWED.program, EngineConfig.parse(options))


def test_dtypes_by_window_are_measured_where_there_are_both_kinds_of_layers() -> None:
    assert dtypes_of(WINDOWED.program) == OF_ALL + BY_WINDOW
    assert dtypes_of(ALL_WINDOWED.program) == OF_ALL
