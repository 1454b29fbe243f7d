"""Tiny models with random weights: every code path of a real one, in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from octavo.batch import Asked, Want, make_batch
from octavo.config import EngineConfig
from octavo.engine.engine import Engine
from octavo.engine.runner import Runner, blocks_bytes
from octavo.kernels import native
from octavo.model import llama
from octavo.model.config import ModelConfig
from octavo.program.program import Program
from octavo.weights.dequantize import dequantize
from octavo.weights.file_table import FileTable
from octavo.weights.ggml_type import GGMLType
from octavo.weights.model_weights import ModelWeights
from tests.kernels.gguf_blocks import HALFS_AT, OWN_FORMAT, random_blocks

AnyRunner = TypeVar("AnyRunner", bound=Runner)

TINY = ModelConfig(
    architecture="llama",
    num_layers=2,
    hidden_size=96,
    ffn_size=160,
    heads=4,
    kv_heads=2,
    head_dim=32,
    vocab_size=1100,  # more than one vocabulary tile, and no multiple of 16
    context=1024,
    norm_eps=1e-5,
    rope_base=10000.0,
    rotary_dim=32,
    rope_style="interleaved",
    tied_head=False,
    qkv_bias=True,
)
SMALL_BLOCKS = replace(
    TINY, hidden_size=256, ffn_size=256, head_dim=64
)  # fits the K-quants' 256 columns


@dataclass(frozen=True)
class TinyModel:
    program: Program
    weights: ModelWeights
    exact: dict[str, NDArray[np.float32]]  # the same weights for the reference interpreter


def tiny_model(
    config: ModelConfig, pool: native.ThreadPool, *, type: GGMLType = GGMLType.Q4_1, seed: int = 0
) -> TinyModel:
    return random_model(llama.build(config), pool, type=type, seed=seed)


def random_model(
    program: Program, pool: native.ThreadPool, *, type: GGMLType, seed: int = 0
) -> TinyModel:
    rng = np.random.default_rng(seed)
    matrices, vectors, tables, exact = {}, {}, {}, {}
    for name, spec in program.weights().items():
        if spec.kind == "vector":
            exact[name] = vectors[name] = (1 + rng.standard_normal(spec.shape) / 8).astype(
                np.float32
            )
            continue
        rows, cols = spec.shape
        raw = random_blocks(type, rows, cols, rng)
        raw = _scaled(raw, type, (rows, cols))
        if spec.kind == "table":
            tables[name] = FileTable(type, raw, rows, cols)
            continue
        fmt = OWN_FORMAT.get(type) or ("F32" if type is GGMLType.F32 else "BF16")
        matrices[name] = native.pack_weight(pool, raw, int(type), rows, cols, fmt)
        exact[name] = dequantize(type, raw, spec.shape)
    return TinyModel(program, ModelWeights(matrices, vectors, tables=tables), exact)


def make_runner(
    model: TinyModel,
    pool: native.ThreadPool,
    *,
    num_blocks: int = 64,
    max_rows: int = 128,
    **options: object,
) -> Runner:
    return make_runner_of(Runner, model, pool, num_blocks=num_blocks, max_rows=max_rows, **options)


def make_runner_of(
    kind: type[AnyRunner],
    model: TinyModel,
    pool: native.ThreadPool,
    *,
    num_blocks: int = 64,
    max_rows: int = 128,
    **options: object,
) -> AnyRunner:
    """The context is what the pool holds, unless it is given."""
    config = EngineConfig.parse(options)
    context = config.context or num_blocks * config.block_size
    return kind(
        model.program, model.weights, config,
        pool=pool, context=context, max_rows=max_rows,
        kv_budget=blocks_bytes(model.program, config, num_blocks),
    )  # fmt: skip


def set_clock(engine: Engine, clock: Callable[[], float]) -> None:
    """Let an engine read its times of requests and steps from another clock."""
    engine.clock = engine.scheduler.clock = engine.updater.clock = clock


def all_logits(
    runner: Runner,
    tokens: Sequence[int],
    cuts: Sequence[int] = (),
    *,
    table: Sequence[int] | None = None,
) -> NDArray[np.float32]:
    """(len, vocab) logits of one sequence alone, computed in the chunks that `cuts` make."""
    tables = [[range(count) if table is None else table] for count in runner.num_blocks]
    out = []
    for begin, end in zip([0, *cuts], [*cuts, len(tokens)], strict=True):
        wants = [Asked(Want.LOGITS)] * (end - begin)
        batch = make_batch([(tokens[begin:end], begin)], tables, range(end - begin), wants)
        out.append(runner.run(batch).logits)
    return np.concatenate(out)


def _scaled(raw: NDArray[np.uint8], type: GGMLType, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The same blocks with their scales set so that weights have a variance of 1 / cols."""
    factor = np.float32(1 / (dequantize(type, raw, shape).std() * np.sqrt(shape[1])))
    if type is GGMLType.F32:
        return (raw.view(np.float32) * factor).view(np.uint8)
    if type is GGMLType.BF16:
        values = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32) * factor
        return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    blocks = raw.reshape(-1, type.block_bytes).copy()
    if type is GGMLType.MXFP4:
        blocks[:, 0] = blocks[:, 0].astype(int) + round(np.log2(factor))
    for at in HALFS_AT.get(type, (0,)):
        halfs = blocks[:, at : at + 2].copy().view(np.float16) * factor
        blocks[:, at : at + 2] = halfs.astype(np.float16).view(np.uint8)
    return blocks.reshape(-1)
