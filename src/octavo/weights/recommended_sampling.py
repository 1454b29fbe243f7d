"""How a model's makers recommend to draw its tokens: the `general.sampling.*` keys of a GGUF file,
and checks for what any file recommends.

All keys that SamplingParams have a counterpart of are taken, or none: where one has a value that
cannot be, a note says so, and the others mean nothing without it. Keys without a counterpart are
named in a note where they would change an answer. Names are llama.cpp's; a penalty of presence and
of frequency have Ollama's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

import numpy as np

from octavo.errors import UsageError
from octavo.sampling_params import Sampling, SamplingParams
from octavo.values import plain
from octavo.weights.gguf_header import MetadataValue

_PREFIX = "general.sampling."
_COUNTERPARTS = MappingProxyType(
    {
        "temp": "temperature",
        "top_k": "top_k",
        "top_p": "top_p",
        "min_p": "min_p",
        "penalty_repeat": "repetition_penalty",
        "penalty_present": "presence_penalty",
        "penalty_freq": "frequency_penalty",
    }
)
# Of keys without one, the values that change nothing.
_OFF: Mapping[str, object] = MappingProxyType(
    {"mirostat": 0, "xtc_probability": 0, "typ_p": 1, "penalty_last_n": -1, "sequence": ""}
)
_DETAILS = ("mirostat_tau", "mirostat_eta", "xtc_threshold")  # of keys that would be named


def recommended_sampling(
    metadata: Mapping[str, MetadataValue], *, note: Callable[[str], None]
) -> Sampling | None:
    """None where the file recommends nothing that can be followed."""
    keys = {k.removeprefix(_PREFIX): plain(v) for k, v in metadata.items() if k.startswith(_PREFIX)}
    top_k = keys.get("top_k")
    if isinstance(top_k, int) and top_k < 0:
        keys["top_k"] = 0  # llama.cpp takes both for all tokens
    asked = {_COUNTERPARTS[k]: v for k, v in keys.items() if k in _COUNTERPARTS}
    checked = checked_sampling(asked, note=note)
    if checked is None:
        return None
    found = Sampling(**{name: _decimal(value) for name, value in asdict(checked).items()})
    if found.repetition_penalty == 1 and not (found.presence_penalty or found.frequency_penalty):
        keys.pop("penalty_last_n", None)  # which says how many tokens are penalised
    others = [k for k in keys if k not in _COUNTERPARTS and k not in _DETAILS]
    lacking = [_PREFIX + k for k in others if k not in _OFF or keys[k] != _OFF[k]]
    if lacking:
        note(f"{', '.join(lacking)}: Octavo has no such sampling, so the rest is used without it")
    return found if asked else None


def checked_sampling(
    asked: Mapping[str, object], *, note: Callable[[str], None]
) -> Sampling | None:
    """What a model's files ask for, by the names of SamplingParams; None, and a note, where one
    value cannot be."""
    try:
        return SamplingParams.parse(asked).sampling()
    except UsageError as error:
        note(f"the sampling that it recommends is not used: {error}")
        return None


def _decimal(value: Any) -> Any:
    """0.7 where its float32 is 0.699999988."""
    return float(str(np.float32(value))) if isinstance(value, float) else value
