"""What the environment says: where models and caches live, keys, whether a terminal may be styled.

Here alone environment variables are read. Knows no options and loads no kernels, so that a program
whose core does not load can still say so in one line.
"""

from __future__ import annotations

import os
from pathlib import Path

from octavo.errors import HomeError


def home() -> Path:
    """Where models and caches live: $OCTAVO_HOME, else the user's cache folder. HomeError where
    there is no telling; a model given by path needs none (`find_home`)."""
    given = os.environ.get("OCTAVO_HOME")
    try:
        return Path(given or f"{_cache_folder()}/octavo").expanduser()
    except RuntimeError:  # no HOME, and no user of this id, or of the name after ~
        why = f"OCTAVO_HOME={given} is of no user" if given else "this user has no home folder"
        raise HomeError(f"{why}: set OCTAVO_HOME to a folder for models and caches") from None


def _cache_folder() -> str:
    """As the XDG base directory specification has it, to which a relative path is none."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return given if given.startswith("/") else "~/.cache"


def find_home() -> Path | None:
    """`home` for what can go without."""
    try:
        return home()
    except HomeError:
        return None


def may_style() -> bool:
    """Whether a terminal may be given more than plain text (no-color.org)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def api_keys() -> list[str]:
    """The keys of a server, $OCTAVO_API_KEYS: those of a key file, with commas between them."""
    return [line for line in os.environ.get("OCTAVO_API_KEYS", "").split(",") if line.strip()]


def traces_wanted() -> bool:
    """Whether OpenTelemetry's own variables say where spans go, and do not turn it off."""
    places = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    off = (
        os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    )
    return not off and any(os.environ.get(name) for name in places)


def api_key() -> str | None:
    """The key for a server that is asked, $OCTAVO_API_KEY."""
    return os.environ.get("OCTAVO_API_KEY") or None


def openai_api_key() -> str | None:
    """Return the key for a server of OpenAI's API that need not be Octavo's: $OPENAI_API_KEY counts
    where there is no $OCTAVO_API_KEY."""
    return api_key() or os.environ.get("OPENAI_API_KEY") or None
