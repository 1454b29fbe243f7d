"""What `pip install octavo` brings: no torch, and less than 200 MB in all."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging.packages import ROOT

SOURCES = ROOT / "src"
LIMIT_MB = 200
NEVER = {"torch", "triton", "transformers", "tensorflow", "jax"}


def runtime_closure(name: str, lookup: Callable[[str], list[str] | None] = requires) -> set[str]:
    """`name` and everything it requires on this machine, extras followed only where asked for."""
    seen: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(name), "")]
    while waiting:
        package, extra = waiting.pop()
        if (package, extra) in seen:
            continue
        seen.add((package, extra))
        for line in lookup(package) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                wanted = canonicalize_name(requirement.name)
                waiting += [(wanted, each) for each in ("", *requirement.extras)]
    return {package for package, _ in seen}


def size_mb(package: str) -> float:
    """Bytes on disk of all that a package installed."""
    files = distribution(package).files or []
    paths = {Path(str(entry.locate())) for entry in files}
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def sources_mb() -> float:
    """An editable install records only a pointer: count the tree it points to."""
    return sum(path.stat().st_size for path in SOURCES.rglob("*") if path.is_file()) / 1e6


def test_the_closure_follows_requirements_markers_and_asked_extras() -> None:
    index = {
        "octavo": ["Rich-Click>=1", "pytest; extra == 'dev'", "winonly; sys_platform == 'win32'"],
        "rich-click": ["rich[jupyter]"],
        "rich": ["rich-click", "ipywidgets; extra == 'jupyter'", "attrs; extra == 'old'"],
        "ipywidgets": ["torch"],
        "torch": [],
    }
    got = runtime_closure("octavo", lookup=index.__getitem__)
    assert got == {"octavo", "rich-click", "rich", "ipywidgets", "torch"}


@pytest.fixture(scope="module")
def closure() -> set[str]:
    try:
        return runtime_closure("octavo")
    except PackageNotFoundError as missing:
        pytest.skip(f"{missing.name} is not installed here: `make test` installs octavo")


def test_what_is_installed_has_no_torch_and_stays_under_the_limit(closure: set[str]) -> None:
    assert {"octavo", "numpy", "tokenizers"} <= closure
    assert closure & NEVER == set()
    sizes = {package: size_mb(package) for package in closure} | {"src/octavo": sources_mb()}
    total = sum(sizes.values())
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:5]
    assert sizes["numpy"] > 5, "numpy's files were not found: the measurement is broken"
    assert total < LIMIT_MB, f"{total:.0f} MB installed, limit {LIMIT_MB}; largest: {largest}"
