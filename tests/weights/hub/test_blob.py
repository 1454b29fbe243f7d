"""One file of weights, while another process fetches the same one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from octavo.weights.hub.blob import Blob, fetch_blob


@pytest.fixture
def blob(tmp_path: Path) -> Blob:
    return Blob(tmp_path / "etag", "http://127.0.0.1:1/nobody", 5, "model.safetensors")


@contextmanager
def before_look(
    blob: Blob, number: int, act: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """`act`, once, before the partial file is looked at for that time."""
    looks, stat = 0, Path.stat

    def look(path: Path, **options: bool) -> object:
        nonlocal looks
        if path == blob.partial:
            looks += 1
            if looks == number:
                act()
        return stat(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", look)
        yield
    assert looks > 0


@pytest.mark.parametrize("look", [1, 2])
def test_nothing_is_missing_of_what_is_renamed_meanwhile(
    look: int, blob: Blob, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob.partial.write_bytes(b"12345")
    with before_look(blob, look, lambda: blob.partial.rename(blob.path), monkeypatch):
        assert blob.missing_bytes() == 0


@pytest.mark.parametrize("look", [1, 2])
def test_a_partial_file_that_goes_while_it_is_compared(
    look: int, blob: Blob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a process that found its sum wrong: its file is not the one that we waited for."""
    whole = Blob(blob.path, blob.url, 0, blob.file)
    with before_look(whole, look, whole.partial.unlink, monkeypatch):
        fetch_blob(whole, lambda have: None)
    assert whole.path.read_bytes() == b""
