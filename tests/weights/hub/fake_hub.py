"""A hub on 127.0.0.1 with one repository, which can misbehave in one chosen way.

It answers as huggingface.co does, as far as downloads go: `/api/models/REPO/revision/REV` lists
files, `/REPO/resolve/REV/FILE` has them with an ETag, the commit, and ranges; weights have their
SHA-256 as ETag and may lie on another host.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

REPO = "owner/tiny"
COMMIT = "a" * 40
Files = dict[str, bytes]


@dataclass(frozen=True)
class Asked:
    method: str
    what: str  # a file, or "list REVISION"
    range: str | None
    token: str | None


@dataclass
class FakeHub:
    commits: dict[str, Files]  # the first is main's
    names: dict[str, str] = field(default_factory=dict)  # branches and tags
    refuses: tuple[int, str] | None = None  # all files: status and X-Error-Code
    unknown: bool = False  # has no such repository
    busy: bool = False  # answers everything with 503
    cdn: str | None = None  # weights lie under this address
    cut_after: int | None = None  # bytes of the first answer with weights, then the line drops
    cuts: int = 1  # so many answers are cut
    stumbles: int = 0  # so many times weights are answered with 503
    ranges: bool = True  # answers Range requests with 206
    spoiled: bool = False  # weights come with one byte changed
    told: dict[str, str] = field(default_factory=dict)  # headers of weights that are told wrong
    listing: bytes | None = None  # in the place of the list of files
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    def __post_init__(self) -> None:
        self.names.setdefault("main", next(iter(self.commits)))

    def commit(self, revision: str) -> str | None:
        return self.names.get(revision, revision if revision in self.commits else None)

    def gets(self) -> list[str]:
        """The files that were sent, in order of their names."""
        return sorted(a.what for a in self.asked if a.method == "GET" and a.what[:5] != "list ")

    def ranges_of(self, file: str) -> list[str | None]:
        return [a.range for a in self.asked if (a.method, a.what) == ("GET", file)]


def etag_of(name: str, data: bytes) -> str:
    if is_weights(name):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # git's


def is_weights(name: str) -> bool:
    return name.endswith((".gguf", ".safetensors"))


def files_of(folder: Path) -> Files:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        listing = re.fullmatch(r"/api/models/(.+?)/revision/(.+)", path)
        file = re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path)
        found = listing or file
        if found is None:  # huggingface_hub asks for other things too
            return self._refuse(404, "")
        what = f"list {found[2]}" if listing else found[3]
        headers = self.headers
        hub.asked.append(Asked(self.command, what, headers["Range"], headers["Authorization"]))
        if hub.busy:
            return self._refuse(503, "")
        if found[1] != REPO or hub.unknown:
            return self._refuse(401, "RepoNotFound")
        commit = hub.commit(found[2])
        if commit is None:
            return self._refuse(404, "RevisionNotFound")
        if file is None:
            return self._send_listing(commit)
        if hub.refuses:
            return self._refuse(*hub.refuses)
        if file[3] not in hub.commits[commit]:
            return self._refuse(404, "EntryNotFound")
        self._send_file(commit, file[3])

    def _refuse(self, status: int, code: str) -> None:
        self._begin(status, 0, {"X-Error-Code": code} if code else {})

    def _begin(self, status: int, size: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(size), **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send_listing(self, commit: str) -> None:
        files = self.hub.commits[commit]
        siblings = [
            {"rfilename": name, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
            for name, data in files.items()
        ]
        body = json.dumps({"id": REPO, "sha": commit, "siblings": siblings}).encode()
        body = body if self.hub.listing is None else self.hub.listing
        self._begin(200, len(body), {"Content-Type": "application/json"})
        self.wfile.write(body)

    def _send_file(self, commit: str, name: str) -> None:
        hub, data = self.hub, self.hub.commits[commit][name]
        if hub.stumbles and is_weights(name) and self.command == "GET":
            hub.stumbles -= 1
            return self._refuse(503, "")
        told = {"X-Repo-Commit": commit, "ETag": f'"{etag_of(name, data)}"'}
        if not is_weights(name):
            self._begin(200, len(data), told)
        elif hub.cdn:
            linked = {"X-Linked-Etag": told["ETag"], "X-Linked-Size": str(len(data))}
            where = {"Location": f"{hub.cdn}/{REPO}/resolve/{commit}/{name}"}
            return self._begin(302, 0, told | linked | where)
        else:
            start = self._begin_weights(data, told | hub.told)
            data = (bytes([data[0] ^ 1]) + data[1:] if hub.spoiled else data)[start:]
            if self.command == "GET" and hub.cut_after is not None and hub.cuts > 0:
                hub.cuts -= 1
                data = data[: hub.cut_after]
        if self.command == "GET":
            self.wfile.write(data)

    def _begin_weights(self, data: bytes, told: dict[str, str]) -> int:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if not match or not self.hub.ranges:
            self._begin(200, len(data), told)
            return 0
        start = int(match[1])
        place = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._begin(206, len(data) - start, told | {"Content-Range": place})
        return start

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def serve(hub: FakeHub) -> Iterator[FakeHub]:
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
