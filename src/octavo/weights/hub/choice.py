"""Which files of a repository are fetched: those that a model directory is read from, or one GGUF
file with all its parts.

Comes in: the names of all files, with their sizes. A repository of both kinds is taken as a
directory, as other programs take it, unless a GGUF file is named. Knows no network.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path

from octavo.errors import (
    ModelFormatError,
    ModelNotFoundError,
    OctavoError,
    UnsupportedModelError,
    UsageError,
)
from octavo.weights.hf.directory import CONFIG, GENERATION, JINJA, TOKENIZER, TOKENIZER_CONFIG
from octavo.weights.hf.tensors import INDEX, WHOLE
from octavo.weights.hub.name import HubName
from octavo.weights.part_names import part_paths

Sizes = Mapping[str, int]  # of all files of a repository, by name

_BESIDE = (CONFIG, GENERATION, TOKENIZER, TOKENIZER_CONFIG, JINJA, "chat_template.json")
_ONLY_TOKENIZER = "tokenizer.model"  # fetched so that what reads directories says what is missing
_NO_MODELS = ("mmproj", "imatrix")  # what stands in GGUF files beside the models


def gguf_files(name: HubName, sizes: Sizes) -> tuple[str, ...]:
    """The GGUF file to fetch, all its parts, the first one first; () for a directory. Raises
    UsageError where one must be named, ModelError where there is none."""
    if name.file is not None:
        return _parts_of(name, _named(name, name.file, sizes), sizes)
    if WHOLE in sizes or INDEX in sizes:
        return ()
    models = gguf_models(sizes)
    if not models:
        raise _no_model(name, sizes)
    if len(models) > 1:
        raise UsageError(_several(name, models))
    return _parts_of(name, next(iter(models)), sizes)


def directory_files(sizes: Sizes) -> tuple[str, ...]:
    """The small files of a directory, and the index of its weights if it has one."""
    wanted = [*_BESIDE]
    if TOKENIZER not in sizes:
        wanted.append(_ONLY_TOKENIZER)
    if WHOLE not in sizes:  # of the two it is the one that others read
        wanted.append(INDEX)
    return tuple(each for each in wanted if each in sizes)


def _named(name: HubName, file: str, sizes: Sizes) -> str:
    if file not in sizes:
        raise ModelNotFoundError(f"{name}: no file {file!r} in {name.repo}; {_near(file, sizes)}")
    if not file.endswith(".gguf"):
        raise UsageError(f"{name}: {file} is no GGUF file; leave it out for the whole directory")
    return file


def _near(file: str, sizes: Sizes) -> str:
    models = [each for each in sizes if each.endswith(".gguf")]
    if not models:
        return "it has no GGUF file"
    lower = {each.lower(): each for each in models}
    # A part of a name, such as Q4_K_M, is what people remember.
    near = [lower[each] for each in lower if file.lower() in each]
    near = near or [lower[e] for e in difflib.get_close_matches(file.lower(), lower, n=3)]
    return f"did you mean {' or '.join(near[:3])}?" if near else f"it has {', '.join(models)}"


def _parts_of(name: HubName, file: str, sizes: Sizes) -> tuple[str, ...]:
    parts = _all_parts(file)
    if missing := [part for part in parts if part not in sizes]:
        raise ModelFormatError(f"{name}: {missing[0]} is missing in {name.repo}")
    return parts


def _all_parts(file: str) -> tuple[str, ...]:
    return tuple(each.as_posix() for each in part_paths(Path(file)))


def gguf_models(sizes: Sizes) -> dict[str, int]:
    """A name and the bytes of each model in GGUF files; of parts the first one's."""
    found: dict[str, int] = {}
    for file in sorted(sizes):
        if not file.endswith(".gguf") or any(word in file.lower() for word in _NO_MODELS):
            continue
        first = _all_parts(file)[0]
        found[first] = found.get(first, 0) + sizes[file]
    return found


def _several(name: HubName, models: Mapping[str, int]) -> str:
    listed = ", ".join(f"{file} ({mib(nbytes)})" for file, nbytes in models.items())
    return f"{name} has {len(models)} GGUF models; give one as {name.of_file('FILE')}: {listed}"


def _no_model(name: HubName, sizes: Sizes) -> OctavoError:
    if "adapter_config.json" in sizes:
        return UnsupportedModelError(f"{name} is a LoRA adapter: Octavo runs whole models")
    if any(re.fullmatch(r"pytorch_model.*\.bin.*", file) for file in sizes):
        return UnsupportedModelError(
            f"{name} has its weights in pytorch_model.bin: convert them to safetensors"
        )
    return UnsupportedModelError(f"{name} has no {WHOLE}, no {INDEX} and no GGUF file")


def mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:,.1f} MiB"
