"""The layer order of the package as a table, and a walker that holds every import against it.

Comes in: a folder that contains the package `octavo`. Goes out: one line for each import that
breaks a rule. Reads source with `ast`, so it imports nothing; imports under TYPE_CHECKING and
inside functions count like any other, because a type name is knowledge too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LAYERS: tuple[frozenset[str], ...] = (
    frozenset(
        {
            *("errors", "values", "options", "environment", "interrupts", "atomic_file"),
            *("sampling_params", "constraint", "request", "batch", "records", "given_text"),
        }
    ),
    frozenset({"kernels"}),
    frozenset({"program", "tokenizer", "kv_cache", "grammar"}),
    frozenset({"config", "weights", "model", "protocol"}),
    frozenset({"engine", "planning"}),
    frozenset({"loaded_model"}),
    frozenset({"serving"}),
    frozenset({"batch_job", "verification", "convert"}),
    frozenset({"cli", "bench", "server", "lens", "scale"}),
)
LEAVES = LAYERS[2]  # these do not know each other
TOP = len(LAYERS) - 1

HTTP = ("http", "urllib", "httpx", "requests", "aiohttp", "fastapi", "starlette", "uvicorn")
BELOW_THE_DOOR = (
    *("octavo.engine", "octavo.weights", "octavo.model", "octavo.loaded_model"),
    *("octavo.program", "octavo.kernels", "octavo.tokenizer", "octavo.kv_cache"),
    *("octavo.serving.llm", "octavo.serving.engine_loop", "octavo.serving.output_queue"),
    "octavo.serving.async_output_queue",
    *("octavo.serving.request_text", "octavo.serving.stop_strings", "octavo.serving.prepare"),
    *("octavo.serving.token_stream", "octavo.serving.open_requests", "octavo.serving.stats"),
    *("octavo.serving.progress", "octavo.serving.readers"),
    *("octavo.serving.promise", "octavo.serving.own_pins", "octavo.serving.pack_keeper"),
)

# What stands behind KVCache, the one door to the cache.
BEHIND_KV_CACHE = tuple(
    f"octavo.kv_cache.{name}"
    for name in (
        *("block_pool", "block_table", "empty_blocks", "evicted_names", "prefix_index"),
        *("sharing", "pins", "prefix_uses", "counts"),
    )
)

# Finer than the layers: (module and all below it, what it must not import, why).
RULES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("octavo.kv_cache", ("numpy", "octavo.kernels"), "the bookkeeping holds ids, no arrays"),
    ("octavo.tokenizer", ("octavo.kernels",), "text knows no arrays of the core"),
    *(
        (f"octavo.program.{name}", ("octavo.kernels",), "only what a kernel runs knows the core")
        for name in ("ops", "builder", "rope", "row_ops", "reference", "cost", "kv_bytes")
    ),
    (
        "octavo.engine.scheduler",
        ("numpy", "tokenizers", "octavo.tokenizer", "octavo.kernels"),
        "the scheduler sees no text and no arrays",
    ),
    ("octavo.planning", ("octavo.engine", "octavo.kernels", "numpy"), "a plan is only told"),
    *(
        (f"octavo.{room}", BEHIND_KV_CACHE, "KVCache is the only door to the cache")
        for room in (
            *("engine", "planning", "loaded_model", "serving", "batch_job", "verification"),
            *("bench", "cli"),
        )
    ),
    *(
        (f"octavo.{room}", ("llguidance",), "grammar/ is the only door to llguidance")
        for room in sorted(frozenset().union(*LAYERS) - {"grammar"})
    ),
    ("octavo.engine", ("octavo.grammar",), "the engine knows constraints, no grammars"),
    ("octavo.engine", HTTP, "the engine knows no HTTP"),
    ("octavo.server", BELOW_THE_DOOR, "the server's only door is async_engine"),
    (
        "octavo.lens",
        (*BELOW_THE_DOOR, "octavo.serving", "octavo.planning"),
        "the lens reads only HTTP JSON",
    ),
)


@dataclass(frozen=True)
class Import:
    """`module` imports `target`, both as dotted names; `line` is where."""

    module: str
    target: str
    line: int


def broken_rules(root: Path) -> list[str]:
    """Every import under root/octavo that breaks a rule, as `file:line: what and why`."""
    found = []
    for path in sorted((root / "octavo").rglob("*.py")):
        module = module_name(root, path)
        if layer_of(module) is None:
            found.append(f"{path.relative_to(root)}: {unit_of(module)!r} is in no layer: add it")
            continue
        for imported in imports_of(root, path):
            why = why_forbidden(imported)
            if why:
                place = f"{path.relative_to(root)}:{imported.line}"
                found.append(f"{place}: {module} imports {imported.target}: {why}")
    return found


def why_forbidden(imported: Import) -> str | None:
    for owner, targets, why in RULES:
        if is_within(imported.module, owner) and any(
            is_within(imported.target, target) for target in targets
        ):
            return why
    if not is_within(imported.target, "octavo"):
        return None
    return why_wrong_layer(unit_of(imported.module), unit_of(imported.target))


def why_wrong_layer(importer: str, target: str) -> str | None:
    if importer == target:
        return None
    own, other = layer_of_unit(importer), layer_of_unit(target)
    assert own is not None, importer
    if other is None:
        return f"{target!r} is in no layer"
    if other > own:
        return f"layer {own} may not import from layer {other}"
    if importer in LEAVES and target in LEAVES:
        return f"the leaves of layer {own} do not know each other"
    return None


def imports_of(root: Path, path: Path) -> Iterator[Import]:
    module = module_name(root, path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(package, node)
            for alias in node.names:
                yield Import(module, target_of(root, base, alias.name), node.lineno)


def absolute(package: str, node: ast.ImportFrom) -> str:
    """The dotted name before `import`, with leading dots resolved against `package`."""
    if node.level == 0:
        return node.module or ""
    parts = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join([*parts, node.module] if node.module else parts)


def target_of(root: Path, base: str, name: str) -> str:
    """`from base import name` names the submodule base.name where there is one, else base."""
    folder = root.joinpath(*base.split("."))
    is_module = (folder / f"{name}.py").is_file() or (folder / name).is_dir()
    return f"{base}.{name}" if is_module else base


def module_name(root: Path, path: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit_of(module: str) -> str:
    """The part of `octavo` a module belongs to; the package's own __init__ is the unit ''."""
    return module.partition(".")[2].partition(".")[0]


def layer_of(module: str) -> int | None:
    return layer_of_unit(unit_of(module))


def layer_of_unit(unit: str) -> int | None:
    """`octavo` itself re-exports from every layer, so only the top layer may import it."""
    if unit in {"", "__main__"}:
        return TOP
    return next((n for n, names in enumerate(LAYERS) if unit in names), None)


def is_within(module: str, owner: str) -> bool:
    return module == owner or module.startswith(owner + ".")
