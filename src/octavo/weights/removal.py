"""Removal: a library model and what is cached of it, or what is cached of another model.

Cached are packed weights, a tokenizer's merges and the fingerprints of the model's files. Of a
model that was given by a path, or lies in huggingface_hub's cache, the files stay: they are not
ours. Removes nothing outside the home; who has a removed file open or mapped keeps it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from octavo.errors import ModelError, ModelNotFoundError
from octavo.tokenizer.kept_merges import kept_path
from octavo.weights.fingerprint import files_of_model, forget, known_fingerprint
from octavo.weights.hub.name import PREFIX
from octavo.weights.library import LIBRARY, cached_from_hub
from octavo.weights.model_header import read_header
from octavo.weights.pack_cache import kept_packs


@dataclass(frozen=True, slots=True)
class Removed:
    what: str
    path: Path
    nbytes: int


def remove(name: str, *, home: Path) -> list[Removed]:
    """Remove a model by the name it is run by. Raises ModelNotFoundError where nothing is ours."""
    path = _path(name, home)
    digest = None
    with contextlib.suppress(ModelError):
        digest = known_fingerprint(path, home=home)
    found = [
        Removed("packed weights", each.path, each.nbytes)
        for each in kept_packs(home)
        if each.fingerprint == digest or each.model == str(path.absolute())
    ]
    with contextlib.suppress(ModelError):  # it is gone, or none
        if path.exists():
            merges = kept_path(read_header(path).tokenizer_spec(), home / "tokenizers")
            if merges.is_file():
                found.append(Removed("tokenizer", merges, merges.stat().st_size))
    if name in LIBRARY and path.is_file():
        found.insert(0, Removed("model", path, path.stat().st_size))
    remembered = False
    with contextlib.suppress(ModelError):
        remembered = bool(forget(files_of_model(path), home=home))
    if not found and not remembered:
        raise ModelNotFoundError(_nothing(name))
    for each in found:
        each.path.unlink(missing_ok=True)
    if name in LIBRARY:
        with contextlib.suppress(OSError):  # what else is in it stays
            path.parent.rmdir()
    return found


def _path(name: str, home: Path) -> Path:
    if name in LIBRARY:
        return LIBRARY[name].path(home)
    if name.startswith(PREFIX):
        for model in cached_from_hub():
            if model.name == name:
                return model.path
        raise ModelNotFoundError(_nothing(name))
    try:
        return Path(name).expanduser()
    except RuntimeError:  # a ~user nobody knows
        raise ModelNotFoundError(_nothing(name)) from None


def _nothing(name: str) -> str:
    if name in LIBRARY:
        return f"{name} is not on this machine, and nothing is cached of it"
    return (
        f"{name[:200]!r} is no library model ({', '.join(LIBRARY)}), and nothing is cached of it: "
        "`octavo list` shows what is"
    )
