"""From a name on the hub to a directory or a GGUF file on this machine, the missing fetched.

Everything lies in huggingface_hub's own cache, and where that is, which hub is asked with which
token, and whether it may be asked, is its business (HF_HOME, HF_ENDPOINT, HF_TOKEN,
HF_HUB_OFFLINE). Of a directory the small files come first, so that a model that would be refused is
refused before its weights are fetched. This module is imported by its one door, `library.find`, and
by the command line, when such a name is given: huggingface_hub takes 0.3 s to load.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub import logging as hub_logging
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from octavo.errors import DownloadError, ModelError, ModelFormatError, OctavoError
from octavo.interrupts import is_interrupt
from octavo.weights.hf.directory import CONFIG, open_directory
from octavo.weights.hf.tensors import INDEX, WHOLE, weight_files
from octavo.weights.hub import failures
from octavo.weights.hub.blob import Blob, fetch_blob
from octavo.weights.hub.cache import RepoCache
from octavo.weights.hub.choice import Sizes, directory_files, gguf_files, mib
from octavo.weights.hub.name import HubName, is_inside
from octavo.weights.progress import Progress

_log = logging.getLogger(__name__)

_WEIGHTS = (".safetensors", ".gguf")
_COMMIT = re.compile("[0-9a-f]{40}")
_ETAG = re.compile("[A-Za-z0-9_-]+")  # it names a file


def fetch(name: HubName, *, progress: Progress | None = None) -> Path:
    """The model's directory, or its GGUF file, the first of several parts. Raises UsageError,
    ModelError, DownloadError."""
    with _silent_hub():
        try:
            return _Fetch(name, progress or _Note()).run()
        except OctavoError:
            raise
        except Exception as error:
            if not failures.is_known(error):
                raise
            raise failures.in_words(error, name) from error


class _Note:
    """Progress for programs that gave none: one line in the log for each thing fetched."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, done: int, total: int, what: str) -> None:
        if what not in self._said:
            self._said.add(what)
            _log.warning("%s: %s", what, mib(total))


@contextlib.contextmanager
def _silent_hub() -> Iterator[None]:
    """Without huggingface_hub's own progress bars and warnings, unless its user asked for them."""
    level = hub_logging.get_verbosity()
    bars = constants.HF_HUB_DISABLE_PROGRESS_BARS is None and not are_progress_bars_disabled()
    if level == logging.WARNING:
        hub_logging.set_verbosity(logging.ERROR)
    if bars:
        disable_progress_bars()
    try:
        yield
    finally:
        hub_logging.set_verbosity(level)
        if bars:
            enable_progress_bars()


class _Fetch:
    """One fetching of one model: what the hub says of it, what is here, what is missing."""

    def __init__(self, name: HubName, show: Progress) -> None:
        self._name = name
        self._show = show
        self._cache = RepoCache.of(name)

    def run(self) -> Path:
        name = self._name
        try:
            info = HfApi(library_name="octavo").model_info(
                name.repo,
                revision=name.revision,
                files_metadata=True,
                timeout=constants.HF_HUB_ETAG_TIMEOUT,
            )
        except Exception as error:
            if failures.is_unreachable(error):
                return self._cached(error)
            unread = isinstance(error, ValueError | TypeError | KeyError | AttributeError)
            if unread and not is_interrupt(error):
                raise self._no_hub("its list of files cannot be read") from error
            raise
        sizes = {e.rfilename: e.size or 0 for e in info.siblings or () if is_inside(e.rfilename)}
        commit = info.sha or ""
        if not _COMMIT.fullmatch(commit):
            raise self._no_hub(f"{commit!r} is its commit")
        gguf = gguf_files(name, sizes)
        if gguf:
            path = self._take(gguf, sizes, commit, "") / gguf[0]
        else:
            path = self._take_directory(sizes, commit)
        self._cache.remember(name.revision, commit)
        return path

    def _take_directory(self, sizes: Sizes, commit: str) -> Path:
        name, small = self._name, directory_files(sizes)
        if CONFIG not in small:
            raise ModelFormatError(f"{name} has safetensors and no {CONFIG}")
        folder = self._take(small, sizes, commit, ", all but its weights")
        if WHOLE in sizes:
            weights = [WHOLE]
        else:
            weights = [each.name for each in weight_files(folder)[1:]]
            if lost := [each for each in weights if each not in sizes]:
                raise ModelFormatError(f"{name}: {INDEX} names {lost[0]}, which {name.repo} lacks")
        if not all((folder / each).exists() for each in weights):
            found = open_directory(folder)
            found.config()  # a model that would be refused is refused before it is fetched
            found.tokenizer_spec(lambda text: None)
        return self._take(weights, sizes, commit, "")

    def _take(self, files: Sequence[str], sizes: Sizes, commit: str, which: str) -> Path:
        """Fetch what is missing of these files; returns the snapshot that they are in."""
        name, here = self._name, self._cache.snapshot(commit)
        missing = [each for each in files if not (here / each).exists()]
        if not missing:
            return here
        blobs = [self._blob(f, sizes[f], commit) for f in missing if f.endswith(_WEIGHTS)]
        self._check_space(blobs)
        total, done = sum(sizes[each] for each in missing), 0
        what = f"downloading {name}{which}"
        for blob in blobs:

            def advance(have: int, before: int = done) -> None:
                self._show(before + have, max(total, before + have), what)

            fetch_blob(blob, advance)
            done += blob.nbytes
        for file in missing:
            # By its commit: a branch may move meanwhile.
            hf_hub_download(name.repo, file, revision=commit, library_name="octavo")
            if not file.endswith(_WEIGHTS):
                done += sizes[file]
                self._show(done, max(total, done), what)
        return here

    def _blob(self, file: str, nbytes: int, commit: str) -> Blob:
        url = hf_hub_url(self._name.repo, file, revision=commit)
        found = get_hf_file_metadata(url, library_name="octavo")
        if found.size == 0:
            raise ModelFormatError(f"{self._name}: {file} is empty in {self._name.repo}")
        etag, size = found.etag or "", found.size or nbytes
        if not _ETAG.fullmatch(etag) or not size:
            raise self._no_hub(f"{file} has ETag {etag!r} and {size} bytes")
        return Blob(self._cache.blob(etag), url, size, file)

    def _no_hub(self, why: str) -> DownloadError:
        return DownloadError(
            f"cannot fetch {self._name}: what answers at {constants.ENDPOINT} is no hub ({why}): "
            "check HF_ENDPOINT, and whether the network wants a log-in"
        )

    def _check_space(self, blobs: Sequence[Blob]) -> None:
        need = sum(blob.missing_bytes() for blob in blobs)
        folder = Path(constants.HF_HUB_CACHE).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < need:
            raise failures.no_space(self._name, need, free, folder)

    def _cached(self, error: Exception) -> Path:
        """What is here of the model as it was last known, where the hub cannot be asked."""
        commit = self._cache.commit(self._name.revision)
        found = None if commit is None else self._whole(commit)
        if found is None:
            raise failures.not_cached(error, self._name) from error
        if not constants.HF_HUB_OFFLINE:
            why = failures.reason(error)
            _log.warning("%s: the hub is not asked (%s): what is cached is used", self._name, why)
        return found

    def _whole(self, commit: str) -> Path | None:
        """Return the model, if all of it is here. Raises UsageError where several are."""
        folder, sizes = self._cache.snapshot(commit), self._cache.sizes(commit)
        try:
            gguf = gguf_files(self._name, sizes)
            needed = [folder / each for each in gguf] or weight_files(folder)
        except ModelError:
            return None
        return (folder / gguf[0] if gguf else folder) if all(e.exists() for e in needed) else None
