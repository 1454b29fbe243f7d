"""Names that stay in the room they belong to, where no import would tell."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import octavo

PACKAGE = Path(octavo.__file__).parent


def names_in(tree: ast.AST) -> Iterator[str]:
    """The names that code uses, gives or defines; no comments, docstrings or other texts."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name
            case ast.keyword(arg=str(name)) | ast.alias(name=name):
                yield name
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name


def reached_in_caches(tree: ast.AST) -> Iterator[str]:
    """What is read of anything called a cache: `pool` in `self._kv.pool`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value).rpartition(".")[2].lstrip("_")
            if owner in ("kv", "kv_cache"):
                yield node.attr


def test_names_are_found_in_code_alone() -> None:
    tree = ast.parse('"""beam"""\ndef of(beam_width):\n    return kv.pool.size, self._kv.index\n')
    assert "beam" not in names_in(tree)
    assert {"of", "beam_width", "pool"} <= set(names_in(tree))
    assert sorted(reached_in_caches(tree)) == ["index", "pool"]


def test_beams_are_known_where_requests_are_decoded_and_nowhere_else_in_the_engine() -> None:
    knowing = {
        path.parent.name
        for path in (PACKAGE / "engine").rglob("*.py")
        if any("beam" in name.lower() for name in names_in(ast.parse(path.read_text())))
    }
    assert knowing == {"decoding"}


def test_nobody_reaches_through_the_cache_for_its_pool_or_its_index() -> None:
    files = [path for path in PACKAGE.rglob("*.py") if path.parent.name != "kv_cache"]
    reached = {name for path in files for name in reached_in_caches(ast.parse(path.read_text()))}
    assert "reserve" in reached
    assert not {"pool", "index", "layout"} & reached
