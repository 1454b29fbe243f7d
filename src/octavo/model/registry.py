"""Which architecture is built by which file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from octavo.errors import UnsupportedModelError
from octavo.model import (
    bloom,
    deepseek2,
    falcon,
    gemma2,
    gemma3,
    gemma4,
    gpt2,
    gpt_oss,
    llama,
    mpt,
    olmo2,
    olmoe,
    opt,
    recurrent,
)
from octavo.model.config import ModelConfig
from octavo.program.ops import Head
from octavo.program.program import Program

ARCHITECTURES: Mapping[str, Callable[[ModelConfig], Program]] = MappingProxyType(
    {
        "bloom": bloom.build,
        "deepseek2": deepseek2.build,
        "falcon": falcon.build,
        "gemma2": gemma2.build,
        "gemma3": gemma3.build,
        "gemma4": gemma4.build,
        "gpt2": gpt2.build,
        "gpt-oss": gpt_oss.build,
        "granite": llama.build,
        "granitemoe": llama.build,
        "llama": llama.build,
        "mistral3": llama.build,
        "mpt": mpt.build,
        "olmo2": olmo2.build,
        "olmoe": olmoe.build,
        "opt": opt.build,
        "phi3": llama.build,
        "qwen2": llama.build,
        "qwen3": llama.build,
        "qwen3moe": llama.build,
        "smollm3": llama.build,
        "starcoder": gpt2.build,
        "starcoder2": falcon.build,
    }
)

_WHY_NOT: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(recurrent.ARCHITECTURES, recurrent.WHY),
        "granitehybrid": f"{recurrent.WHY}; files of dense Granite 4 models say 'granite'",
    }
)


def why_unsupported(architecture: str) -> str:
    """Say why no model of it is run, naming those that are; "" if they are run."""
    if architecture in ARCHITECTURES:
        return ""
    if architecture in _WHY_NOT:
        return f"architecture {architecture!r} is not supported: {_WHY_NOT[architecture]}"
    known = ", ".join(sorted(ARCHITECTURES))
    return f"architecture {architecture!r} is not supported: {known} are"


def build_program(cfg: ModelConfig) -> Program:
    """The readable program of a model, of all that it computes. Raises UnsupportedModelError."""
    if why := why_unsupported(cfg.architecture) or cfg.unsupported:
        raise UnsupportedModelError(why)
    return _of_tokens(ARCHITECTURES[cfg.architecture](cfg), cfg)


def _of_tokens(program: Program, cfg: ModelConfig) -> Program:
    """Leave the padding of a vocabulary out of a program's answers: for no model to forget."""
    *ops, head = program.ops
    assert isinstance(head, Head)
    head = replace(head, tokens=cfg.tokens)
    return replace(program, ops=(*ops, head), vocab_size=cfg.tokens)
