"""Octavo: language models on CPUs around an exact paged KV cache."""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = ["__version__"]
