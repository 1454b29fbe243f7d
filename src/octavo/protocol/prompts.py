"""The prompts of a body: texts, or token ids, one or several."""

from __future__ import annotations

from octavo.errors import kind_of
from octavo.protocol.bodies import BodyError, as_whole
from octavo.values import is_whole

TextOrIds = str | tuple[int, ...]

MOST_PROMPTS = 2048


def read_prompts(given: object, name: str) -> tuple[TextOrIds, ...]:
    """A text, token ids, or a list of either. Raises BodyError."""
    if isinstance(given, str):
        return (given,)
    if ids := as_ids(given):
        return (ids,)
    if isinstance(given, list) and given:
        if len(given) > MOST_PROMPTS:
            why = f"{len(given):,} of them: at most {MOST_PROMPTS:,} at once"
            raise BodyError(f"{name}: {why}", name)
        if all(isinstance(each, str) for each in given):
            return tuple(given)
        several = tuple(ids for each in given if (ids := as_ids(each)))
        if len(several) == len(given):
            return several
    kind = "an empty list" if given == [] else kind_of(given)
    expected = "a string, a list of token ids, or a list of either"
    raise BodyError(f"{name}: expected {expected}, found {kind}", name)


def as_ids(value: object) -> tuple[int, ...] | None:
    """A list of whole numbers; None for what is none."""
    found = tuple(map(as_whole, value)) if isinstance(value, list) else None
    return found if found is not None and all(map(is_whole, found)) else None  # type: ignore[return-value]  # checked
