"""Octavo: language models on CPUs around an exact paged KV cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from octavo.request import RequestOptions, RequestOutput
from octavo.sampling_params import SamplingParams

if TYPE_CHECKING:
    from octavo.async_engine import AsyncEngine
    from octavo.llm import LLM

__version__ = "0.1.0"

__all__ = [
    "LLM",
    "AsyncEngine",
    "RequestOptions",
    "RequestOutput",
    "SamplingParams",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """`LLM` and `AsyncEngine` bring in numpy, the tokenizers and the compiled core: only when they
    are asked for."""
    if name == "LLM":
        from octavo.llm import LLM

        return LLM
    if name == "AsyncEngine":
        from octavo.async_engine import AsyncEngine

        return AsyncEngine
    raise AttributeError(f"module 'octavo' has no attribute {name!r}")
