"""The pack cache of the tiny model: a file of it, and one that was kept."""

from __future__ import annotations

import os
import time
from pathlib import Path

from octavo.config import PackedWeights
from octavo.kernels import native
from octavo.weights.model_header import ModelHeader
from octavo.weights.model_weights import ModelWeights, load_weights
from octavo.weights.pack_cache import PackFile
from octavo.weights.packed_formats import packed_formats

POOL = native.ThreadPool(2)
SHA = "ab" * 32


def file_of(
    header: ModelHeader, home: Path, sha: str = SHA, asked: PackedWeights | None = None
) -> PackFile:
    specs = header.program().weights()
    return PackFile.of(home, sha, header, specs, packed_formats(header, specs, asked))


def weights_of(header: ModelHeader) -> ModelWeights:
    return load_weights(header, header.program().weights(), POOL)


def keep(header: ModelHeader, home: Path, sha: str = SHA) -> PackFile:
    file = file_of(header, home, sha)
    file.write(weights_of(header), lambda: None)
    return file


def used(path: Path, ago: float) -> None:
    os.utime(path, (time.time() - ago,) * 2)
