"""Which models in huggingface_hub's cache run as they are: nothing is fetched, no hub is asked.

Comes in: what huggingface_hub finds in its cache. Goes out: names as users type them, with the path
each leads to. What misses a file, or would be refused, is left out without a word: `octavo inspect`
says why.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CachedRepoInfo, CachedRevisionInfo, constants, scan_cache_dir
from huggingface_hub.errors import CacheNotFound

from octavo.errors import ModelError, UsageError
from octavo.weights import model_header
from octavo.weights.hf.tensors import INDEX, WHOLE, weight_files
from octavo.weights.hub.choice import gguf_models
from octavo.weights.hub.name import MAIN, PREFIX, HubName, parse


@dataclass(frozen=True, slots=True)
class CachedModel:
    name: str  # hf:owner/name, and what tells it from others of the repository
    path: Path
    nbytes: int


def cached_models() -> list[CachedModel]:
    """Return the models, sorted by name. A cache that is not there, or is none, holds none."""
    try:
        repos = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except (CacheNotFound, ValueError, OSError):
        return []
    with _without_notes():
        models = [
            model
            for repo in repos
            if repo.repo_type == "model"
            for name, revision in _names(repo)
            for model in _runnable(name, revision)
        ]
    return sorted(models, key=lambda each: each.name)


def _names(repo: CachedRepoInfo) -> Iterator[tuple[HubName, CachedRevisionInfo]]:
    """Each revision by one name: `main`, else a branch or tag, else its commit."""
    for revision in repo.revisions:
        refs = sorted(revision.refs)
        which = MAIN if MAIN in refs else refs[0] if refs else revision.commit_hash
        with contextlib.suppress(UsageError):  # no name of today's hub
            yield parse(f"{PREFIX}{repo.repo_id}@{which}"), revision


def _runnable(name: HubName, revision: CachedRevisionInfo) -> Iterator[CachedModel]:
    folder = revision.snapshot_path
    sizes = {
        each.file_path.relative_to(folder).as_posix(): each.size_on_disk for each in revision.files
    }
    if (WHOLE in sizes or INDEX in sizes) and _runs(folder):
        files = (each.name for each in weight_files(folder))
        yield CachedModel(str(name), folder, sum(sizes[each] for each in files))
    for file, nbytes in gguf_models(sizes).items():
        # The hub may have others, so each is named, were it the only one that is here.
        if _runs(folder / file):
            yield CachedModel(name.of_file(file), folder / file, nbytes)


def _runs(path: Path) -> bool:
    """As `octavo inspect` finds out."""
    try:
        header = model_header.read_header(path)
        header.program()
        header.tokenizer_spec()
    except ModelError:
        return False
    return True


@contextlib.contextmanager
def _without_notes() -> Iterator[None]:
    """Without what is noted of each file: it is said when the model is used."""
    log = logging.getLogger(model_header.__name__)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
