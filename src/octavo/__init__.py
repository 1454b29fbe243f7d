"""Octavo: language models on CPUs around an exact paged KV cache.

What a caller meets is at the top: the doors `LLM` and `AsyncEngine`, what they take and give, and
every error they raise. The rest of the package is internal.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from octavo.errors import (
    DownloadError,
    EngineClosedError,
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
from octavo.records import CacheReason, CacheRecord, CacheSource, StepRecord
from octavo.request import (
    Completion,
    Metrics,
    RequestOptions,
    RequestOutput,
    StreamChunk,
    TokenLogprobs,
    Usage,
)
from octavo.sampling_params import SamplingParams

__version__ = "0.1.0"

__all__ = [
    "LLM",
    "AsyncEngine",
    "CacheReason",
    "CacheRecord",
    "CacheSource",
    "Completion",
    "DownloadError",
    "EngineClosedError",
    "EngineConfig",
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
    "PromptTooLongError",
    "RequestOptions",
    "RequestOutput",
    "SamplingParams",
    "StepRecord",
    "StreamChunk",
    "TokenLogprobs",
    "TokenStream",
    "TraceError",
    "UnsupportedModelError",
    "Usage",
    "UsageError",
    "__version__",
]

if TYPE_CHECKING:
    from octavo.async_engine import AsyncEngine, TokenStream
    from octavo.config import EngineConfig
    from octavo.llm import LLM
    from octavo.loaded_model import ModelInfo
else:  # these bring in numpy, the tokenizers and the compiled core: only when they are asked for
    _LAZY = {
        "LLM": "octavo.llm",
        "AsyncEngine": "octavo.async_engine",
        "TokenStream": "octavo.async_engine",
        "EngineConfig": "octavo.config",
        "ModelInfo": "octavo.loaded_model",
    }

    def __getattr__(name: str) -> object:
        if name not in _LAZY:
            raise AttributeError(f"module 'octavo' has no attribute {name!r}")
        return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return __all__
