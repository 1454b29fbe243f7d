"""An engine over a tiny model: the real scheduler, cache and native program, in milliseconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from octavo.config import EngineConfig
from octavo.engine.engine import Engine, EngineLimits
from octavo.kernels import native
from octavo.kv_cache.names import Namespace
from octavo.loaded_model import make_engine
from octavo.planning.memory import KVPages, MemoryPlan
from octavo.request import Request, RequestOptions
from octavo.sampling_params import SamplingParams
from tests.tiny import TinyModel, make_runner

NAMESPACE = Namespace(fingerprint="tiny", numerics="test", k_dtype="any", v_dtype="any")


def tiny_engine(
    model: TinyModel,
    pool: native.ThreadPool,
    *,
    num_blocks: int = 64,
    max_rows: int = 128,
    eos_ids: Sequence[int] = (),
    clock: Callable[[], float] = time.monotonic,
    **options: object,
) -> Engine:
    """The context is what the pool holds, unless it is given."""
    config = EngineConfig.parse(options)
    context = config.context or num_blocks * config.block_size
    runner = make_runner(model, pool, num_blocks=num_blocks, max_rows=max_rows, **options)
    pages = KVPages(config.block_size, tuple(each.block_stride for each in runner.layouts))
    plan = MemoryPlan(context, num_blocks * pages.block_bytes, pages)
    limits = EngineLimits(plan.context, frozenset(eos_ids), kv_idle=config.kv_idle)
    return make_engine(
        runner, model.program, config, plan, limits, NAMESPACE, weight_bytes=1e6, clock=clock
    )


def add(
    engine: Engine, tokens: Sequence[int], options: RequestOptions | None = None, **params: object
) -> Request:
    """A request that is greedy, unless `params` say how to draw."""
    asked = SamplingParams.parse({"temperature": 0, **params})
    return engine.add(tokens, asked, options or RequestOptions())


def run(engine: Engine) -> None:
    """Step until nothing is left, checking everything after each step."""
    while engine.has_unfinished:
        engine.step()
        engine.check_integrity()
