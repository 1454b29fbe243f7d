"""What went wrong with the hub, as one line that says what to do.

Comes in: an exception of huggingface_hub, of the HTTP library under it, or of the disk. The HTTP
library is another one in each of huggingface_hub's major versions; its errors are told by name.
"""

from __future__ import annotations

import errno
from pathlib import Path

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from octavo.errors import DownloadError, ModelNotFoundError, OctavoError
from octavo.interrupts import is_interrupt
from octavo.weights.hub.name import HubName

_BUSY = (408, 429, 500, 502, 503, 504)


def is_unreachable(error: Exception) -> bool:
    """Whether the hub could not be asked, or its answer ended too early: it may be better later."""
    error = _cause(error)
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _BUSY
    return isinstance(error, OfflineModeIsEnabled) or _is_transport(error)


def is_known(error: Exception) -> bool:
    """Whether `in_words` has words for it; else it is a bug, or none of our business."""
    cause = _cause(error)
    if is_interrupt(cause) or isinstance(cause, BrokenPipeError):  # nobody reads the progress
        return False
    known = (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError)
    return isinstance(cause, known) or _is_transport(cause)


def in_words(error: Exception, name: HubName) -> OctavoError:
    error = _cause(error)
    if isinstance(error, GatedRepoError):
        return DownloadError(_gated(name))
    if isinstance(error, RevisionNotFoundError):
        return ModelNotFoundError(
            f"{name}: {name.repo} has no revision {name.revision!r}: give a branch, a tag or a "
            "commit of it"
        )
    if isinstance(error, RepositoryNotFoundError):
        return ModelNotFoundError(_no_repository(name))
    if isinstance(error, RemoteEntryNotFoundError):
        return ModelNotFoundError(f"{name}: {error.response.url} is not there: try again")
    if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
        return DownloadError(
            f"{name}: {constants.ENDPOINT} refuses access ({reason(error)}): check the token in "
            "HF_TOKEN"
        )
    if isinstance(error, OSError) and error.errno is not None:
        return _of_disk(error, name)
    return DownloadError(
        f"cannot fetch {name} from {constants.ENDPOINT}: {reason(error)}; check the network, and "
        "HF_ENDPOINT if it is set, then run this again: it goes on where it stopped"
    )


def not_cached(error: Exception, name: HubName) -> OctavoError:
    """The hub could not be asked, and too little is here."""
    if isinstance(_cause(error), OfflineModeIsEnabled):
        return DownloadError(
            f"{name} is not (all) in {constants.HF_HUB_CACHE}, and the hub may not be asked: unset "
            "HF_HUB_OFFLINE, or fetch it on a machine with a network"
        )
    return in_words(error, name)


def no_space(name: HubName, need: int, free: int, folder: Path) -> DownloadError:
    return DownloadError(
        f"fetching {name} takes {need / 2**20:,.0f} MiB, and {folder} has {free / 2**20:,.0f} MiB "
        "free; free space there, or set HF_HOME to a folder on another disk"
    )


def reason(error: Exception) -> str:
    """What happened, without advice: the hub's own words, or those of the connection."""
    error = _cause(error)
    if isinstance(error, HfHubHTTPError):
        status = f"HTTP {error.response.status_code}"
        return f"{status}: {_flat(error.server_message)}" if error.server_message else status
    return _flat(str(error)) or type(error).__name__


def _is_transport(error: BaseException) -> bool:
    """Whether the connection failed, or ended too early."""
    return any(each.__name__ == "TransportError" for each in type(error).__mro__)


def _flat(text: str) -> str:
    return " ".join(text.split())


def _cause(error: Exception) -> Exception:
    """What huggingface_hub found nothing in its cache for is told by what kept it from the hub."""
    while isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def _gated(name: HubName) -> str:
    page = f"{constants.ENDPOINT}/{name.repo}"
    if get_token() is None:
        return f"{name} is gated: ask for access at {page}, then set HF_TOKEN to your token"
    return f"{name} is gated, and the token in use may not read it: ask for access at {page}"


def _no_repository(name: HubName) -> str:
    there = f"{name}: no repository {name.repo} at {constants.ENDPOINT}"
    if get_token() is None:
        return f"{there}, or it is private: check the name, or set HF_TOKEN to your token"
    return f"{there}, or the token in use may not read it: check the name and HF_TOKEN"


def _of_disk(error: OSError, name: HubName) -> DownloadError:
    why = error.strerror or str(error)
    mend = "free space there, or set HF_HOME to a folder on another disk"
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        mend = "set HF_HOME to a folder that can be written"
    return DownloadError(f"cannot store {name} in {constants.HF_HUB_CACHE}: {why}; {mend}")
