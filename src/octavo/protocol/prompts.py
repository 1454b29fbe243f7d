"""The prompts of a body: texts, or token ids, one or several."""

from __future__ import annotations

from octavo.errors import kind_of
from octavo.protocol.bodies import BodyError
from octavo.values import is_whole

TextOrIds = str | tuple[int, ...]

_MOST_PROMPTS = 2048


def read_prompts(given: object, name: str) -> tuple[TextOrIds, ...]:
    """A text, token ids, or a list of either. Raises BodyError."""
    if isinstance(given, str):
        return (given,)
    if _is_ids(given):
        return (tuple(given),)  # type: ignore[arg-type]  # checked
    if isinstance(given, list) and given:
        if len(given) > _MOST_PROMPTS:
            why = f"{len(given):,} of them: at most {_MOST_PROMPTS:,} at once"
            raise BodyError(f"{name}: {why}", name)
        if all(isinstance(each, str) for each in given):
            return tuple(given)
        if all(_is_ids(each) for each in given):
            return tuple(tuple(each) for each in given)
    kind = "an empty list" if given == [] else kind_of(given)
    expected = "a string, a list of token ids, or a list of either"
    raise BodyError(f"{name}: expected {expected}, found {kind}", name)


def _is_ids(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_whole, value))
