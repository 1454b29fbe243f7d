"""Sliding contexts: a model's program as options ask for it.

Comes in: a program, options, the context that the model was trained for. Knows no ops, no pages.
"""

from __future__ import annotations

from octavo.config import EngineConfig
from octavo.errors import UsageError, counted
from octavo.program.program import Program
from octavo.program.slide import slide, why_not_sliding


def apply_sliding_context(program: Program, config: EngineConfig, model_context: int) -> Program:
    """The program whose context slides if the options say so. Raises UsageError where it cannot, or
    where rows would see more than the model was trained for."""
    tokens = config.sliding_context
    if tokens is None:
        return program
    if tokens > model_context:
        raise UsageError(
            f"sliding_context={tokens}: the model was trained for at most "
            f"{counted(model_context, 'token')}, and no token may see more of them"
        )
    if (why := why_not_sliding(program)) is not None:
        raise UsageError(f"sliding_context={tokens}: this model has none: {why}")
    return slide(program, tokens, config.sliding_sinks)
