"""Which architecture is built by which file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from octavo.errors import UnsupportedModelError
from octavo.model import llama
from octavo.model.config import ModelConfig
from octavo.program.ops import Program

ARCHITECTURES: Mapping[str, Callable[[ModelConfig], Program]] = MappingProxyType(
    {"llama": llama.build, "qwen2": llama.build}
)


def check_architecture(name: str) -> None:
    """Raises UnsupportedModelError, naming what is supported."""
    if name not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise UnsupportedModelError(f"architecture {name!r} is not supported: {known} are")


def build_program(cfg: ModelConfig) -> Program:
    """The readable program of a model, of all that it computes. Raises UnsupportedModelError."""
    check_architecture(cfg.architecture)
    if cfg.unsupported:
        raise UnsupportedModelError(cfg.unsupported)
    return ARCHITECTURES[cfg.architecture](cfg)
