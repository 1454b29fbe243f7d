"""One file of weights into huggingface_hub's cache, in a way that goes on after a kill.

huggingface_hub takes up a line that drops, but forgets what it has when its process ends; a file of
gigabytes must not begin again. So the bytes go into `blobs/ETAG.octavo.incomplete`, under a lock,
and are renamed to the blob's own name when they are all there and, where the ETag is a SHA-256,
right. huggingface_hub then finds the blob and links it.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from huggingface_hub import constants, get_session
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from octavo.errors import DownloadError
from octavo.weights.hub.failures import is_unreachable

_log = logging.getLogger(__name__)

_TRIES = 5  # without a new byte
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Blob:
    path: Path
    url: str
    nbytes: int
    file: str  # its name, for messages

    @property
    def partial(self) -> Path:
        return self.path.with_name(f"{self.path.name}.octavo.incomplete")

    def missing_bytes(self) -> int:
        """Return what is still to be fetched. Another process may rename the partial file at any
        time: the blob is looked for last."""
        have = _status(self.partial)
        missing = self.nbytes if have is None else max(self.nbytes - have.st_size, 0)
        return 0 if self.path.exists() else missing


def fetch_blob(blob: Blob, advance: Callable[[int], None]) -> None:
    """Fetch what is missing; `advance` is told how many bytes of it are here."""
    blob.path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(blob) as file:
        if file is None:
            return
        if file.seek(0, os.SEEK_END) > blob.nbytes:
            _empty(file)
        advance(file.tell())
        _fill(blob, file, advance)
        file.flush()
        os.fsync(file.fileno())
        if _SHA256.fullmatch(blob.path.name):
            _check(blob)
        os.replace(blob.partial, blob.path)


@contextmanager
def _locked(blob: Blob) -> Iterator[BinaryIO | None]:
    """The partial file, which nobody else writes to; None if the blob is there meanwhile."""
    while True:
        with open(blob.partial, "ab") as file:
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _log.warning("another process fetches %s: waiting for it", blob.file)
                fcntl.flock(file.fileno(), fcntl.LOCK_EX)
            if blob.path.exists():  # another process was faster
                blob.partial.unlink(missing_ok=True)
                yield None
                return
            # What we waited for may have been renamed and then deleted: it is not the file to fill.
            found = _status(blob.partial)
            if found is not None and os.path.samestat(os.fstat(file.fileno()), found):
                yield file
                return


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _fill(blob: Blob, file: BinaryIO, advance: Callable[[int], None]) -> None:
    idle = 0
    while (have := file.tell()) < blob.nbytes:
        try:
            _take_answer(blob, file, advance)
        except Exception as error:
            if not is_unreachable(error) or (idle == _TRIES and file.tell() == have):
                raise
        idle = idle + 1 if file.tell() == have else 0
        if idle > _TRIES:
            raise DownloadError(f"{blob.url} ends after {have} of {blob.nbytes} bytes: try again")
        if idle:
            time.sleep(1)


def _take_answer(blob: Blob, file: BinaryIO, advance: Callable[[int], None]) -> None:
    """Append what one request brings. The client takes the token out where a redirect leads to
    another host."""
    have = file.tell()
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream(
        "GET", blob.url, headers=headers, follow_redirects=True, timeout=timeout
    ) as answer:
        hf_raise_for_status(answer)
        if have and answer.status_code != 206:  # it knows no ranges and sends all
            _empty(file)
        for data in answer.iter_bytes():
            if file.tell() + len(data) > blob.nbytes:
                raise DownloadError(
                    f"{blob.url} has more than the {blob.nbytes} bytes it was said to have"
                )
            file.write(data)
            advance(file.tell())


def _empty(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()


def _check(blob: Blob) -> None:
    with open(blob.partial, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != blob.path.name:
        blob.partial.unlink()
        raise DownloadError(
            f"{blob.file} was fetched with sha256 {digest}, expected {blob.path.name}; it was "
            "deleted: run this again"
        )
