"""Octavo: language models on CPUs around an exact paged KV cache.

What a caller meets is at the top: the doors `LLM` and `AsyncEngine`, what they take and give, and
every error they raise. The rest of the package is internal.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "LLM",
    "AsyncEngine",
    "CacheReason",
    "CacheRecord",
    "CacheSource",
    "CacheView",
    "Completion",
    "Constraint",
    "ConstraintError",
    "DownloadError",
    "EngineClosedError",
    "EngineConfig",
    "GrammarError",
    "GrammarSpec",
    "HomeError",
    "KernelError",
    "Metrics",
    "ModelError",
    "ModelFormatError",
    "ModelInfo",
    "ModelNotFoundError",
    "OctavoError",
    "OutOfMemoryError",
    "OverloadedError",
    "Pin",
    "PromptTooLongError",
    "RequestOptions",
    "RequestOutput",
    "Sampling",
    "SamplingParams",
    "SharedPrefix",
    "StepRecord",
    "StreamChunk",
    "TokenLogprobs",
    "TokenStream",
    "Totals",
    "TraceError",
    "UnsupportedModelError",
    "Usage",
    "UsageError",
    "__version__",
]

if TYPE_CHECKING:
    from octavo.config import EngineConfig
    from octavo.constraint import Constraint
    from octavo.errors import (
        ConstraintError,
        DownloadError,
        EngineClosedError,
        GrammarError,
        HomeError,
        KernelError,
        ModelError,
        ModelFormatError,
        ModelNotFoundError,
        OctavoError,
        OutOfMemoryError,
        OverloadedError,
        PromptTooLongError,
        TraceError,
        UnsupportedModelError,
        UsageError,
    )
    from octavo.grammar import GrammarSpec
    from octavo.loaded_model import ModelInfo
    from octavo.records import (
        CacheReason,
        CacheRecord,
        CacheSource,
        CacheView,
        Pin,
        SharedPrefix,
        StepRecord,
        Totals,
    )
    from octavo.request import (
        Completion,
        Metrics,
        RequestOptions,
        RequestOutput,
        StreamChunk,
        TokenLogprobs,
        Usage,
    )
    from octavo.sampling_params import Sampling, SamplingParams
    from octavo.serving.async_engine import AsyncEngine
    from octavo.serving.llm import LLM
    from octavo.serving.token_stream import TokenStream
else:  # nothing comes in before it is asked for: every start of the command line passes here
    _NAMES = {
        "config": ["EngineConfig"],
        "constraint": ["Constraint"],
        "grammar": ["GrammarSpec"],
        "loaded_model": ["ModelInfo"],
        "records": [
            *("CacheReason", "CacheRecord", "CacheSource", "CacheView", "Pin", "SharedPrefix"),
            *("StepRecord", "Totals"),
        ],
        "request": [
            *("Completion", "Metrics", "RequestOptions", "RequestOutput", "StreamChunk"),
            *("TokenLogprobs", "Usage"),
        ],
        "sampling_params": ["Sampling", "SamplingParams"],
        "serving.async_engine": ["AsyncEngine"],
        "serving.llm": ["LLM"],
        "serving.token_stream": ["TokenStream"],
    }
    _MODULE = {name: module for module, names in _NAMES.items() for name in names}

    def __getattr__(name: str) -> object:
        module = _MODULE.get(name, "errors" if name in __all__ else None)
        if module is None:
            raise AttributeError(f"module 'octavo' has no attribute {name!r}")
        return getattr(importlib.import_module(f"octavo.{module}"), name)


def __dir__() -> list[str]:
    return __all__
