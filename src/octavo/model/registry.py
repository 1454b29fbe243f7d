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


def build_program(cfg: ModelConfig) -> Program:
    """The readable program of a model. Raises UnsupportedModelError, naming what is supported."""
    build = ARCHITECTURES.get(cfg.architecture)
    if build is None:
        known = ", ".join(sorted(ARCHITECTURES))
        raise UnsupportedModelError(
            f"architecture {cfg.architecture!r} is not supported: {known} are"
        )
    return build(cfg)
