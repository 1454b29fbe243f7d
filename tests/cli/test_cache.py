"""`octavo cache`: what a running server says of its cache."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from octavo.server.auth import Keys
from tests.cli.result import Octavo
from tests.cli.tiny_model import write_tiny_model
from tests.server.live import Live

ANN, BOB = "ann-0123456789abcdef", "bob-0123456789abcdef"
ASKED = {"prompt": "a prompt of two blocks of 16 tokens", "max_tokens": 1}


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    path = write_tiny_model(tmp_path / "tiny.gguf")
    with Live(path, keys=Keys([f"{ANN} admin", BOB])) as server:
        yield server


def test_ls_stats_and_clear(octavo: Octavo, live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    where = ("--url", live.url)
    monkeypatch.setenv("OCTAVO_API_KEY", ANN)
    empty = octavo("cache", "ls", *where)
    assert (empty.code, empty.out) == (0, "no prompt began as an earlier one did\n")
    for _ in range(3):
        live.post("/v1/completions", ASKED, x_api_key=ANN)
    listed = octavo("cache", "ls", *where)
    words = " ".join(listed.out.split("\n")[1].split())
    assert words == "a prompt of two blocks of 16 tok 32 2"
    assert octavo("cache", "ls", *where, "--json").json["prefixes"][0]["num_hits"] == 2
    told = octavo("cache", "stats", *where)
    assert "model     tiny" in told.out
    figures = octavo("cache", "stats", *where, "--json").json
    kept = figures["counts"]["kv_blocks_kept"]
    assert f"0 of them pinned; {kept} kept" in told.out
    cleared = octavo("cache", "clear", *where, "--json")
    assert (cleared.code, cleared.json) == (0, {"blocks": kept})
    assert octavo("cache", "clear", *where).out == "0 blocks forgotten\n"


def test_what_the_server_refuses_is_said(
    octavo: Octavo, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ("--url", live.url)
    monkeypatch.delenv("OCTAVO_API_KEY", raising=False)
    found = octavo("cache", "stats", *where)
    assert (found.code, found.out) == (1, "")
    assert found.err.endswith("Authorization: Bearer KEY; OCTAVO_API_KEY has the key\n")
    monkeypatch.setenv("OCTAVO_API_KEY", BOB)
    assert "only a key with `admin` may clear" in octavo("cache", "clear", *where).err
    monkeypatch.setenv("OCTAVO_API_KEY", "é\u20ac")
    assert octavo("cache", "ls", *where).code == 2
    monkeypatch.setenv("OCTAVO_API_KEY", "a\nb")
    assert octavo("cache", "ls", *where).code == 2


def test_no_server(octavo: Octavo, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        found = octavo("cache", "stats", "--url", url)
    assert found.code == 1
    assert found.err == (
        f"octavo: no server answers at {url} (connection refused); --url says where it is, and "
        "`octavo serve MODEL` starts one\n"
    )
    lost = octavo("cache", "ls", "--url", f"unix:{tmp_path}/none.sock")
    assert (lost.code, "no such file or directory" in lost.err) == (1, True)


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8000", "ftp://x", "http://", "http://x:port", "http://me@x", "http://x?y"],
)
def test_what_is_no_url(octavo: Octavo, url: str) -> None:
    found = octavo("cache", "ls", "--url", url)
    assert found.code == 2
    assert found.err.startswith(f"octavo: --url {url!r}: expected http://HOST:PORT")


@contextmanager
def other(answer: bytes) -> Iterator[str]:
    """Something else that answers once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def test_another_server(octavo: Octavo) -> None:
    with other(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi") as url:
        found = octavo("cache", "ls", "--url", url)
    assert (found.code, found.err) == (1, f"octavo: {url} is no server of Octavo: it answers 200\n")
    with other(b"\r\n") as url:
        assert "no server answers" in octavo("cache", "ls", "--url", url).err
