"""LoadedModel: a model file and a configuration become a running engine.

Puts the parts together, in the order that memory wants: header, plan, weights, pages. Knows no text
beyond the tokenizer it makes, and runs nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from octavo.config import EngineConfig, check_context
from octavo.engine.assemble import make_engine
from octavo.engine.engine import Engine
from octavo.engine.runner import Runner, kv_layouts
from octavo.environment import find_home, home
from octavo.errors import HomeError, OutOfMemoryError
from octavo.kernels import default_isa, numerics_id, thread_pool
from octavo.kv_cache.block_names import Namespace
from octavo.model.config import ModelConfig
from octavo.model.registry import build_program
from octavo.planning.available_memory import available_memory
from octavo.planning.memory import KVPages, kv_pages, page_formats, plan_memory
from octavo.planning.sliding import apply_sliding_context
from octavo.program.program import Program
from octavo.sampling_params import Sampling
from octavo.tokenizer import Tokenizer
from octavo.weights import kv_verdicts, library
from octavo.weights.fingerprint import fingerprint, known_fingerprint
from octavo.weights.model_header import ModelHeader, read_header
from octavo.weights.model_weights import ModelWeights, load_weights, open_tables
from octavo.weights.pack_cache import PackFile
from octavo.weights.packed_formats import packed_bytes, packed_formats

logger = logging.getLogger(__name__)

KEPT_FROM = 64 << 20  # bytes of a model's files; smaller ones are packed in no time


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What was loaded: names, and bytes as they are in memory."""

    path: Path
    weight_bytes: int
    tensor_types: Mapping[str, tuple[int, int]]  # of the file: name -> (tensors, bytes)
    context: int  # of a sequence
    sliding_context: int | None  # that a token of it sees; None: all
    model_context: int  # what the model was trained for
    kv_blocks: int
    block_bytes: int
    block_size: int
    threads: int
    isa: str
    sampling: Sampling | None  # what the file recommends
    weights_mapped: bool  # from the pack cache: shared with all processes that map them
    kv_warning: str | None = None  # this model was measured with this kv_dtype, which is not safe


@dataclass(frozen=True, slots=True)
class LoadedModel:
    config: EngineConfig
    model_config: ModelConfig
    program: Program
    tokenizer: Tokenizer
    runner: Runner
    engine: Engine
    info: ModelInfo
    to_keep: Pack | None  # packed weights that the pack cache does not have


@dataclass(frozen=True, slots=True)
class Pack:
    """Packed weights, and where they are to be kept."""

    file: PackFile
    weights: ModelWeights


def open_model(model: str | Path) -> tuple[ModelHeader, Program]:
    """Return what a model is, before its weights are read. Raises ModelError."""
    header, program, _ = _open(model)
    return header, program


def _open(model: str | Path) -> tuple[ModelHeader, Program, str | None]:
    """Open a model. The third is its SHA-256 where it was read: of a library model, whose file is
    checked before anything of it is used."""
    folder = find_home()
    path = library.find(model, home=folder)
    digest = library.check_whole(path, home=folder)
    header = read_header(path)
    return header, header.program(), digest


def load_model(model: str | Path, config: EngineConfig) -> LoadedModel:
    """Raises UsageError, ModelError, OutOfMemoryError, KernelError."""
    try:
        return _load(model, config)
    except MemoryError as error:
        raise OutOfMemoryError(
            f"memory ran out while {model} was loaded: free memory, raise the limit (`ulimit -v`), "
            "or lower kv_memory"
        ) from error


def _load(model: str | Path, config: EngineConfig) -> LoadedModel:
    header, program, digest = _open(model)
    folder = _home_for_caches()
    cache_dir = None if folder is None else folder / "tokenizers"
    spec = header.tokenizer_spec()
    weight_bytes = int(sum(packed_bytes(header, program.weights(), config.weights).values()))
    model_context = header.config.context
    model_longest = header.config.longest(config.context)
    longest = config.longest_sequence(model_longest)
    check_context(config.context, longest, header.config.why_no_longer)
    program = apply_sliding_context(program, config, model_context)
    plan = plan_memory(
        config, _pages(program, config, _max_rows(config, model_longest)),
        longest, weight_bytes=weight_bytes, available=available_memory(),
    )  # fmt: skip
    seen = config.sliding_context or plan.context
    model_config = header.config.for_context(seen)
    if model_config is not header.config:
        program = apply_sliding_context(build_program(model_config), config, model_context)
    pool = thread_pool(config.threads)
    # Both may take a second, and packing leaves the GIL to the tokenizer.
    with ThreadPoolExecutor(1) as beside:
        building = beside.submit(Tokenizer.from_spec, spec, cache_dir=cache_dir)
        kept = _pack_file(header, program, config, folder, digest)
        found = None if kept is None else kept.read()
        if found is not None:
            found = replace(found, tables=open_tables(header, program.weights()))
        weights = found or load_weights(header, program.weights(), pool, asked=config.weights)
        runner = Runner(
            program, weights, config,
            pool=pool, context=plan.context, kv_budget=plan.budget,
            max_rows=_max_rows(config, plan.context),
        )  # fmt: skip
    tokenizer = building.result()
    digest = digest or fingerprint(header.path, home=folder)
    namespace = Namespace(
        fingerprint=digest,
        numerics=numerics(config, long_rope=header.config.is_long(seen)),
        k_dtype=config.page_dtypes[0],
        v_dtype=config.page_dtypes[1],
    )
    header.check_unchanged()  # the fingerprint is of what was loaded
    if found is None and kept is None:
        kept = _pack_file(header, program, config, folder, digest)
    engine = make_engine(
        runner, program, config, namespace,
        context=plan.context, eos_ids=tokenizer.eos_ids, weight_bytes=weights.nbytes(),
    )  # fmt: skip
    info = ModelInfo(
        path=header.path,
        weight_bytes=weights.nbytes(),
        tensor_types=header.tensor_types(),
        context=plan.context,
        sliding_context=config.sliding_context,
        model_context=header.config.context,
        kv_blocks=plan.num_blocks,
        block_bytes=runner.block_bytes,
        block_size=config.block_size,
        threads=pool.size,
        isa=runner.isa,
        sampling=header.sampling(),
        weights_mapped=weights.mapped,
        kv_warning=kv_verdicts.warning(
            folder, digest, config.kv_dtype, config.weights, config.kv_sink_tokens
        ),
    )
    to_keep = None if kept is None or found is not None else Pack(kept, weights)
    return LoadedModel(config, model_config, program, tokenizer, runner, engine, info, to_keep)


def _pack_file(
    header: ModelHeader,
    program: Program,
    config: EngineConfig,
    folder: Path | None,
    digest: str | None,
) -> PackFile | None:
    """Where the packed weights are kept; None if they are not to be, or as long as the fingerprint
    is not known: then there are none yet."""
    wanted = config.pack_cache
    if wanted is None:
        wanted = header.files.nbytes() > KEPT_FROM
    if not wanted or folder is None:
        return None
    digest = digest or known_fingerprint(header.path, home=folder)
    if digest is None:
        return None
    specs = program.weights()
    formats = packed_formats(header, specs, config.weights)
    return PackFile.of(folder, digest, header, specs, formats)


def _home_for_caches() -> Path | None:
    """A model given by path runs without; that costs every start some time."""
    try:
        return home()
    except HomeError as error:
        logger.warning("%s; until then the model is prepared anew at every start", error)
        return None


def _max_rows(config: EngineConfig, context: int) -> int:
    """Rows of a step: without a cache a whole sequence is computed in one."""
    return max(config.max_batch_tokens, 0 if config.kv_cache else context)


def _pages(program: Program, config: EngineConfig, max_rows: int) -> KVPages:
    """The pages as they are planned, held against what the kernels make of them. Raises
    UnsupportedModelError for heads that no kernel runs."""
    layouts = kv_layouts(program, config)
    formats = page_formats(program, config)
    pages = kv_pages(program, config.block_size, formats, max_rows=max_rows)
    assert pages.group_block_bytes == tuple(layout.block_stride for layout in layouts)
    return pages


def numerics(config: EngineConfig, *, long_rope: bool = False) -> str:
    """Return what the bits of K and V depend on, beside the file: the machine's arithmetic, how
    rows are packed, what weights are quantised or unpacked to, which of two lists of RoPE factors
    turns them, and what rows see of a sliding context."""
    parts = [numerics_id(default_isa()), config.activations or "int8", config.weights or "packed"]
    parts += ["long rope"] if long_rope else []
    if config.sliding_context is not None:
        parts.append(f"sliding {config.sliding_context}, sinks {config.sliding_sinks}")
    return "/".join(parts)
