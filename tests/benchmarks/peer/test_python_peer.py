"""A peer in an interpreter of its own: what it is asked, what it answers, how it ends."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.peer.one import NotSupportedError, PeerError, Settings
from benchmarks.peer.python_peer import PythonPeer
from tests.benchmarks.peer.fakes import CHAT, DECODE, MODEL, PROMPT, SETTINGS, script

# An engine that tells what it was given as a number, and prints in the middle of it.
_ENGINE = """
import os
from benchmarks.peer.worker import CannotError, Options, serve

class Engine:
    def __init__(self, options):
        assert options == Options("/models/some.gguf", "", 100, 2, 64, 4), options
        print("a banner")
    def measure(self, work, prompts):
        with open(os.environ["LOG"], "a") as log:
            print(work.name, sum(map(sum, prompts)), file=log)
        os.write(1, b"noise\\n")
        if work.counted == "all":
            raise CannotError("no batches")
        if work.counted == "new":
            raise ValueError("no\\nmemory")
        return float(sum(map(sum, prompts)))

serve(Engine)
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def peer(tmp_path: Path, log: Path) -> Iterator[PythonPeer]:
    path = script(tmp_path / "engine.py", _ENGINE)
    command = [sys.executable, str(path)]
    found = PythonPeer("fake", "2", "so", command, MODEL, SETTINGS, {"LOG": str(log)})
    yield found
    found.close()


def test_it_measures_the_prompts_of_the_seed_after_a_round_of_others(
    peer: PythonPeer, log: Path
) -> None:
    for seed in (0, 1):
        assert peer.run(PROMPT, seed) == sum(PROMPT.prompts(100, seed)[0])
    sums = [sum(PROMPT.prompts(100, seed)[0]) for seed in (10_000, 0, 1)]
    assert log.read_text().splitlines() == [f"prefill-32 {each}" for each in sums]


def test_it_says_what_it_cannot_and_goes_on(peer: PythonPeer) -> None:
    with pytest.raises(NotSupportedError, match=r"^no batches$"):
        peer.run(CHAT, 0)
    with pytest.raises(PeerError, match=r"^memory$"):
        peer.run(DECODE, 0)
    assert peer.run(PROMPT, 0) > 0


def test_one_that_ends_says_its_last_words_and_is_begun_anew(tmp_path: Path) -> None:
    path = script(tmp_path / "ends.py", "raise SystemExit('no such package')")
    peer = PythonPeer("fake", "2", "so", [str(path)], MODEL, SETTINGS)
    for _ in range(2):
        with pytest.raises(PeerError, match=r"^it ended: no such package$"):
            peer.run(PROMPT, 0)


def test_one_that_was_killed_between_turns_is_out_of_one_and_begun_anew(peer: PythonPeer) -> None:
    assert peer.run(PROMPT, 0) > 0
    assert peer.process is not None
    peer.process.kill()
    peer.process.wait()
    with pytest.raises(PeerError, match=r"^it ended: "):
        peer.run(PROMPT, 1)
    assert peer.run(PROMPT, 1) > 0


def test_one_that_failed_is_begun_anew_for_what_it_was_asked_may_still_run(
    peer: PythonPeer,
) -> None:
    with pytest.raises(PeerError, match=r"^memory$"):
        peer.run(DECODE, 0)
    assert peer.process is None


def test_one_that_does_not_answer_is_ended(tmp_path: Path) -> None:
    path = script(tmp_path / "waits.py", "import signal\nwhile True: signal.pause()")
    settings = Settings(threads=2, context=64, streams=4, seconds=0.05)
    peer = PythonPeer("fake", "2", "so", [str(path)], MODEL, settings)
    with pytest.raises(PeerError, match=r"^no answer in 0\.05 s$"):
        peer.run(PROMPT, 0)
    assert peer.process is None


def test_ours_is_measured_by_its_own_interpreter(tmp_path: Path) -> None:
    """Octavo itself, on a tiny model, at each kind of workload."""
    from benchmarks.peer.installed import find
    from benchmarks.peer.one import Missing, Model
    from benchmarks.synthetic_gguf import write_model
    from tests.benchmarks.peer.fakes import EVERY

    model = Model(write_model("tiny", "Q4_0", tmp_path), None, vocabulary=1536)
    peer = find("octavo", None, model, SETTINGS)
    assert not isinstance(peer, Missing)
    try:
        speeds = {work.name: peer.run(work, seed=0) for work in EVERY}
    finally:
        peer.close()
    assert all(speed > 0 for speed in speeds.values()), json.dumps(speeds)
