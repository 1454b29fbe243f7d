"""What `octavo plan` says is what the engine takes, down to the byte, and what the kernels lay out.

The model is one whose block is no whole number of pages: 6,144 bytes of K and V in 8,192.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from octavo import LLM, OutOfMemoryError, SamplingParams
from octavo.cli.app import run
from octavo.config import EngineConfig
from octavo.engine.runner import kv_layouts
from octavo.kernels import KV_FORMATS, native
from octavo.kv_cache.cache import KVCache
from octavo.loaded_model import open_model
from octavo.model import llama
from octavo.planning.memory import kv_pages, page_formats
from octavo.planning.plan import PROCESS_BYTES
from octavo.weights.ggml_type import GGMLType
from tests.cli.tiny_model import write_tiny_model
from tests.exactness.programs import Latent, latent
from tests.program.test_native_groups import two_groups
from tests.tiny import TINY, make_runner, random_model
from tests.weights.gguf_bytes import U32, entry, u32

BLOCK = 8192

Plan = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("odd") / "odd.gguf"
    return str(write_tiny_model(path, layers=3, kv_heads=1))


@pytest.fixture
def plan(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Plan:
    """`octavo plan` of it, as JSON."""
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path))

    def call(*flags: object) -> dict[str, Any]:
        run(["plan", model, *map(str, flags), "--json"])
        found: dict[str, Any] = json.loads(capfd.readouterr().out)
        return found

    return call


@pytest.mark.parametrize(("context", "blocks"), [(2, 1), (32, 1), (33, 2), (100, 4), (128, 4)])
def test_a_context_needs_the_bytes_that_the_plan_says_and_not_one_less(
    model: str, plan: Plan, context: int, blocks: int
) -> None:
    found = plan("--context", context)
    assert found["kv_bytes_per_token"] * 32 == 6144
    assert found["kv_bytes_per_user"] == found["kv_bytes"] == blocks * BLOCK
    llm = LLM(model, threads=1, context=context, kv_memory=blocks * BLOCK)
    assert (llm.info.kv_blocks, llm.info.block_bytes) == (blocks, BLOCK)
    (answer,) = llm.generate([[7] * (context - 1)], SamplingParams(max_tokens=1))
    assert answer.outputs[0].finish_reason == "length"
    with pytest.raises(OutOfMemoryError, match=f"{blocks * BLOCK:,} bytes"):
        LLM(model, threads=1, context=context, kv_memory=blocks * BLOCK - 1)


@pytest.mark.parametrize("kv_cache", [True, False])
@pytest.mark.parametrize("context", [20, 33, 100, 128])
def test_a_model_with_windows_runs_in_the_bytes_of_its_context_and_not_one_less(
    tmp_path: Path, context: int, kv_cache: bool
) -> None:
    """They are no whole number of blocks of every layer group. Four layers, one of them full."""
    window = entry("gemma3.attention.sliding_window", U32, u32(20))
    pattern = entry("gemma3.attention.sliding_window_pattern", U32, u32(3))
    path = tmp_path / "windows.gguf"
    write_tiny_model(path, layers=4, architecture="gemma3", more=[window, pattern])
    options: dict[str, Any] = {
        "context": context, "block_size": 16, "max_batch_tokens": 32, "kv_cache": kv_cache,
    }  # fmt: skip
    header, program = open_model(path)
    max_rows = 32 if kv_cache else header.config.context
    formats = page_formats(program, EngineConfig())
    needed = kv_pages(program, 16, formats, max_rows=max_rows).bytes_of(context)
    llm = LLM(path, threads=1, kv_memory=needed, **options)
    (answer,) = llm.generate([[7] * (context - 3)], SamplingParams(max_tokens=3, ignore_eos=True))
    assert len(answer.outputs[0].token_ids) == 3
    with pytest.raises(OutOfMemoryError, match=f"needs {needed:,} bytes"):
        LLM(path, threads=1, kv_memory=needed - 1, **options)


@pytest.mark.parametrize("budget", [BLOCK, 2 * BLOCK - 1, 2 * BLOCK, 3 * BLOCK + 6144, 9 * BLOCK])
def test_a_memory_holds_the_context_that_the_plan_says(model: str, plan: Plan, budget: int) -> None:
    memory = plan()["weight_bytes"] + PROCESS_BYTES + budget
    found = plan("--context", 40, "--memory", int(memory))
    info = LLM(model, threads=1, kv_memory=budget).info
    assert info.context == found["context_that_fits"]
    assert info.kv_blocks // 2 == found["users_that_fit"]  # 40 tokens are in two blocks
    assert found["fits"] == (budget >= 2 * BLOCK)


@pytest.mark.parametrize("block_size", [16, 32, 64])
@pytest.mark.parametrize("kv_dtype", [f"k={k},v={v}" for k in KV_FORMATS for v in KV_FORMATS])
def test_pages_are_planned_as_the_kernels_lay_them_out(kv_dtype: str, block_size: int) -> None:
    config = EngineConfig.parse({"kv_dtype": kv_dtype, "block_size": block_size})
    shapes = [(layers, heads) for layers in (1, 2, 3, 5) for heads in (1, 2, 3)]
    models = [replace(TINY, num_layers=n, heads=h, kv_heads=h, head_dim=48) for n, h in shapes]
    latents = [latent(Latent(3, layers, 40)) for layers in (1, 2, 5)]
    for program in (*map(llama.build, models), two_groups(), *latents):
        layouts = kv_layouts(program, config)
        assert len(layouts) == len(program.groups) + ("k=int4" in kv_dtype)
        pages = kv_pages(program, block_size, page_formats(program, config), max_rows=512)
        assert pages.group_block_bytes == tuple(layout.block_stride for layout in layouts)


@pytest.mark.parametrize("sinks", [(), ("--kv-sinks", 0)])
@pytest.mark.parametrize(("context", "blocks"), [(20, 1), (40, 2), (128, 4)])
def test_with_int4_the_first_block_is_bf16_in_the_plan_and_in_the_engine(
    model: str, plan: Plan, context: int, blocks: int, sinks: tuple[str | int, ...]
) -> None:
    """1,920 bytes of int4 in a page, 6,144 of bf16 in two; without sinks all pages are one."""
    needed = int(plan("--context", context, "--kv-dtype", "int4", *sinks)["kv_bytes_per_user"])
    assert needed == (blocks if sinks else blocks + 1) * 4096
    options: dict[str, Any] = {"threads": 1, "context": context, "kv_dtype": "int4"}
    options |= {"kv_sinks": 0} if sinks else {}
    llm = LLM(model, kv_memory=needed, **options)
    assert (llm.info.kv_blocks, llm.info.block_bytes) == (blocks, 4096)
    (answer,) = llm.generate([[7] * (context - 1)], SamplingParams(max_tokens=1))
    assert answer.outputs[0].finish_reason == "length"
    assert answer.metrics.kv_bytes == needed
    with pytest.raises(OutOfMemoryError, match=f"needs {needed:,} bytes"):
        LLM(model, kv_memory=needed - 1, **options)


def test_a_sequence_of_windowed_groups_takes_what_the_cache_lets_it_hold() -> None:
    """Of a windowed group no more than its window and the rows of a step."""
    model = random_model(two_groups(), native.ThreadPool(1), type=GGMLType.F32)
    runner = make_runner(model, native.ThreadPool(1), kv_dtype="f32")
    kv = KVCache(runner.groups, block_size=32, budget=runner.kv_budget, max_rows=runner.max_rows)
    formats = page_formats(model.program, EngineConfig(kv_dtype="f32"))
    pages = kv_pages(model.program, 32, formats, max_rows=runner.max_rows)
    assert pages.bytes_of(1024) < 32 * pages.block_bytes
    for tokens in range(1, 1200, 31):
        nbytes = pages.bytes_of(tokens)
        assert nbytes == kv.at_most(tokens)
        assert pages.tokens_in(nbytes) >= tokens > pages.tokens_in(nbytes - 1)
