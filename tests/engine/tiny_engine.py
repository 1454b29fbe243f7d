"""An engine over a tiny model: the real scheduler, cache and native program, in milliseconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from octavo.config import EngineConfig
from octavo.engine.assemble import make_engine
from octavo.engine.engine import Engine
from octavo.engine.nouns import Request
from octavo.engine.runner import Runner
from octavo.kernels import native
from octavo.kv_cache.block_names import Namespace
from octavo.program.program import Program
from octavo.records import BlockEvent
from octavo.request import RequestOptions
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
    **options: Any,
) -> Engine:
    """The context is what the pool holds, unless it is given."""
    runner = make_runner(model, pool, num_blocks=num_blocks, max_rows=max_rows, **options)
    return engine_over(
        runner, model.program, num_blocks=num_blocks, eos_ids=eos_ids, clock=clock, **options
    )


def engine_over(
    runner: Runner,
    program: Program,
    *,
    num_blocks: int = 64,
    eos_ids: Sequence[int] = (),
    clock: Callable[[], float] = time.monotonic,
    on_event: Callable[[BlockEvent], None] | None = None,
    **options: Any,
) -> Engine:
    """An engine over a runner that was made with the same options."""
    config = EngineConfig.parse(options)
    return make_engine(
        runner, program, config, NAMESPACE,
        context=config.context or num_blocks * config.block_size, eos_ids=frozenset(eos_ids),
        weight_bytes=1e6, clock=clock, on_event=on_event,
    )  # fmt: skip


def add(
    engine: Engine, tokens: Sequence[int], options: RequestOptions | None = None, **params: Any
) -> Request:
    """A request that is greedy, unless `params` say how to draw."""
    asked = SamplingParams.parse({"temperature": 0, **params})
    return engine.add(tokens, asked, options or RequestOptions())


def answered(
    engine: Engine, tokens: Sequence[int], options: RequestOptions | None = None, **params: Any
) -> Request:
    """A request that ran to its end, beside what there was."""
    request = add(engine, tokens, options, **params)
    run(engine)
    return request


def run(engine: Engine) -> None:
    """Step until nothing is left, checking everything after each step."""
    while engine.has_unfinished:
        engine.step()
        engine.check_integrity()
