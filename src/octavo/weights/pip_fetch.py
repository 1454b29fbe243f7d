"""Worker process: fetch one wheel through pip's own session, continuing a partial file.

Run as a script by `download`: `pip_fetch.py PROJECT VERSION TARGET`. Writes TARGET.part, renames it
to TARGET when whole, and reports in JSON lines on stdout: `{"bytes": n}` for what is on disk,
`{"error": text}`, or `{"unsupported": text}` if this pip does not offer what is used here.

Why pip's session: it is the one client that has the user's indexes, find-links, proxies,
certificates and credentials exactly as `pip install` has them. Why not pip's commands: `pip
download` starts from zero after a kill, and `pip install --dry-run --report` names the URL but
fetches the whole wheel to do so wherever the index serves no separate metadata, then leaves out
the credentials. What is used of pip has no stability promise, so it is confined to `open_index`,
and its absence has its own report: `download` then takes the public command.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

CHUNK = 1 << 16


class FetchError(Exception):
    """The wheel cannot be had; the message is for the user."""


class SkippedIndexes(logging.Handler):
    """Keeps why indexes could not be read: pip only logs it, then says 'no matching version'."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.reasons: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not isinstance(record.args, tuple):
            return
        args = [str(arg) for arg in record.args]
        if record.msg.startswith("Could not fetch URL") and not args[1].startswith("404 "):
            self.reasons.append(f"{args[0]}: {_short(args[1])}")
        elif record.msg.startswith("The repository located at"):
            self.reasons.append(f"{args[0]} is plain http, which pip wants as a trusted-host")


def _short(reason: str) -> str:
    """The part of a nested requests/urllib3 message that a person can use."""
    if " for url" in reason:
        return reason.split(" for url", 1)[0]
    short = reason.rsplit(": ", 1)[-1].rstrip(" ')>")
    return short + ")" * (short.count("(") - short.count(")"))


@contextlib.contextmanager
def open_index(project: str, version: str) -> Iterator[tuple[Any, Any]]:
    """pip's session and its link to the wheel."""
    options = ["--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input"]
    command = importlib.import_module("pip._internal.commands").create_command("download")
    specifiers = importlib.import_module("pip._vendor.packaging.specifiers")
    skipped = SkippedIndexes()
    logger = logging.getLogger("pip")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(skipped)
    logger.propagate = False
    with command.main_context():
        # Two retries, because a machine that is offline should hear so within a second or two.
        parsed, _ = command.parse_args([*options, "--retries", "2"])
        session = command.get_default_session(parsed)
        finder = command._build_package_finder(options=parsed, session=session)
        found = finder.find_best_candidate(project, specifiers.SpecifierSet(f"=={version}"))
        if found.best_candidate is None:
            raise FetchError(
                "; ".join(dict.fromkeys(skipped.reasons))
                or f"none of the indexes that pip uses has a wheel {project}=={version}"
            )
        yield session, found.best_candidate.link


def fetch(session: Any, link: Any, part: Path, out: TextIO) -> None:
    """Bring `part` to the whole wheel, going on from the bytes it has."""
    if link.is_file:
        _copy_file(Path(link.file_path), part, out)
        return
    while True:
        before = _size(part)
        try:
            _continue_download(session, link.url.split("#", 1)[0], part, out)
            return
        except (BrokenPipeError, FetchError):
            raise
        except Exception as error:
            # A connection that broke after some bytes is taken up again at once; pip's session
            # has already retried one that brought none.
            if _size(part) <= before:
                why = _short(str(error)) or type(error).__name__
                raise FetchError(f"{link.filename}: {why}") from error


def _continue_download(session: Any, url: str, part: Path, out: TextIO) -> None:
    have = _size(part)
    headers = {"Accept-Encoding": "identity"}  # as pip: a gzipped wheel would not be resumable
    if have:
        headers["Range"] = f"bytes={have}-"
    with session.get(url, headers=headers, stream=True) as response:
        if response.status_code == 416:  # `part` is whole, or not of this file
            if response.headers.get("Content-Range") != f"bytes */{have}":
                part.unlink()
                _continue_download(session, url, part, out)
            return
        if response.status_code >= 400:
            raise FetchError(f"the server answers {response.status_code} {response.reason}")
        start = have if response.status_code == 206 else 0
        length = response.headers.get("Content-Length")
        with part.open("r+b" if have else "wb") as file:
            file.truncate(start)
            file.seek(start)
            for data in response.raw.stream(CHUNK, decode_content=False):
                _write(file, data, out)
        if length is not None and _size(part) < start + int(length):
            raise ConnectionError("the connection broke off")


def _copy_file(source: Path, part: Path, out: TextIO) -> None:
    with source.open("rb") as input_, part.open("wb") as output:
        while data := input_.read(CHUNK * 16):
            _write(output, data, out)


def _write(file: BinaryIO, data: bytes, out: TextIO) -> None:
    file.write(data)
    file.flush()  # a report is a promise: these bytes outlive a kill
    _report(out, bytes=file.tell())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _report(out: TextIO, **message: object) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()


def check(part: Path, link: Any) -> str | None:
    """Say what the index's own checksum has against the wheel; None if it is right or unknown."""
    if link.hash_name != "sha256":
        return None
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found == link.hash:
        return None
    return f"{link.filename} has sha256 {found}, the index says {link.hash}"


def run(project: str, version: str, target: Path, out: TextIO) -> None:
    part = target.with_name(target.name + ".part")
    with open_index(project, version) as (session, link):
        resumed = _size(part) > 0
        fetch(session, link, part, out)
        wrong = check(part, link)
        if wrong and resumed:  # it may have been begun from another index's file
            part.unlink()
            fetch(session, link, part, out)
            wrong = check(part, link)
    if wrong:
        part.unlink()
        raise FetchError(wrong)
    part.rename(target)


def _exit_with_parent() -> None:
    """The parent keeps our stdin open while it lives: without it nobody wants the file."""
    os.read(0, 1)  # not sys.stdin: its lock, held here, would abort a normal exit
    os._exit(1)


def main() -> None:
    out, sys.stdout = sys.stdout, sys.stderr  # stdout is the report channel, whatever pip prints
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    project, version, target = sys.argv[1:]
    try:
        run(project, version, Path(target), out)
    except FetchError as error:
        _report(out, error=str(error))
    except (ImportError, AttributeError, TypeError) as error:
        _report(out, unsupported=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
