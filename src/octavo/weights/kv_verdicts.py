"""What KV dtypes were found to do to models, remembered by the models' fingerprints.

`home/kv_dtypes.json` holds what `octavo bench kv-dtype` found last: by fingerprint, and the format
that weights are unpacked or quantised to where one is asked for; then by dtype and whether the
first tokens stay bf16. It is a note, not a lock: broken, missing or unwritable it only warns
nobody. It is replaced whole.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from octavo.atomic_file import write_whole

Verdict = Literal["safe", "usable", "not safe"]
MAX_MODELS = 256

Found = dict[str, dict[str, Any]]  # by dtype: the figures, and under "verdict" a Verdict or None


def key(dtype: str, sinks: int) -> str:
    """The name of a dtype where so many tokens stay bf16."""
    return f"{dtype}+sinks" if sinks else dtype


def keep(
    home: Path,
    fingerprint: str,
    found: Mapping[str, Mapping[str, Any]],
    weights: str | None = None,
) -> None:
    """Remember figures of these dtypes, by `key`, with such `weights`, beside what is known of
    others of the model. Figures without a verdict take the place of none that has one."""
    everything = _read(home)
    model = _model(fingerprint, weights)
    known = everything.pop(model, {})
    for dtype, each in found.items():
        if each.get("verdict") is not None or known.get(dtype, {}).get("verdict") is None:
            known[dtype] = dict(each)
    everything[model] = known
    kept = dict(list(everything.items())[-MAX_MODELS:])
    with contextlib.suppress(OSError):
        write_whole(home / "kv_dtypes.json", json.dumps(kept, indent=1).encode())


def verdict(
    home: Path | None, fingerprint: str, dtype: str, weights: str | None = None, sinks: int = 0
) -> Verdict | None:
    """Return what was found of the dtype; None where nothing was, or no verdict was given."""
    if home is None:
        return None
    by_dtype = _read(home).get(_model(fingerprint, weights), {})
    said = by_dtype.get(key(dtype, sinks), {}).get("verdict")
    return said if said in get_args(Verdict) else None


def warning(
    home: Path | None, fingerprint: str, dtype: str, weights: str | None = None, sinks: int = 0
) -> str | None:
    """Return one line where this dtype was found not to be safe for the model, or has int4 and
    nothing was found."""
    found = verdict(home, fingerprint, dtype, weights, sinks)
    bare = "" if sinks or "int4" not in dtype else " without sinks"
    if found is None and "int4" in dtype:
        return (
            f"kv_dtype={dtype}{bare} was not measured for this model: `octavo bench kv-dtype` "
            "tells what it costs in quality"
        )
    if found != "not safe":
        return None
    return (
        f"kv_dtype={dtype}{bare} was measured as not safe for this model: its answers are worse "
        "than with bf16 (`octavo bench kv-dtype` shows by how much)"
    )


def _model(fingerprint: str, weights: str | None) -> str:
    """Weights of another format are another model's."""
    return fingerprint if weights is None else f"{fingerprint} {weights}"


def _read(home: Path) -> dict[str, Found]:
    try:
        found = json.loads((home / "kv_dtypes.json").read_bytes())
    except (OSError, ValueError, RecursionError):  # brackets too deep
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        name: {d: each for d, each in model.items() if isinstance(each, dict)}
        for name, model in found.items()
        if isinstance(model, dict)
    }
