"""Packed weights are kept when nobody waits: after an answer, between requests, or at the end."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from octavo import LLM, SamplingParams
from octavo.serving.pack_keeper import PackKeeper
from tests.gate import PATIENCE, Gate

PROMPT, SHORT = [5, 6, 7, 8], SamplingParams(max_tokens=4, temperature=0, ignore_eos=True)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("octavo.weights.huge_pages.share_of_huge", lambda data: 1.0)
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def settled(tiny_path: Path) -> None:
    """A file that has just been written is not remembered."""
    os.utime(tiny_path, (1e9, 1e9))


def keepers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "octavo-keeper"]


def wait_for_keepers() -> None:
    for each in keepers():
        each.join(PATIENCE)
        assert not each.is_alive()


def kept(home: Path) -> list[Path]:
    return sorted(home.glob("packed/*"))


def test_the_second_start_maps_what_the_first_kept_and_answers_the_same(
    tiny_path: Path, home: Path
) -> None:
    first = LLM(tiny_path, threads=1, pack_cache=True)
    assert kept(home) == []
    expected = first.generate([PROMPT], SHORT)[0].outputs[0].token_ids
    wait_for_keepers()
    (path,) = kept(home)
    second = LLM(tiny_path, threads=1, pack_cache=True)
    assert (first.info.weights_mapped, second.info.weights_mapped) == (False, True)
    assert first.info.weight_bytes == second.info.weight_bytes
    assert keepers() == []
    assert np.array_equal(first.logits(PROMPT), second.logits(PROMPT))
    assert second.generate([PROMPT], SHORT)[0].outputs[0].token_ids == expected
    path.unlink()  # as `octavo rm` does under a running process
    assert np.array_equal(first.logits(PROMPT), second.logits(PROMPT))


@pytest.mark.parametrize("pack_cache", [None, False])
def test_a_small_model_is_kept_only_on_request(
    tiny_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, pack_cache: bool | None
) -> None:
    llm = LLM(tiny_path, threads=1, pack_cache=pack_cache)
    llm.generate([PROMPT], SHORT)
    assert (keepers(), kept(home)) == ([], [])
    monkeypatch.setattr("octavo.loaded_model.KEPT_FROM", tiny_path.stat().st_size - 1)
    LLM(tiny_path, threads=1, pack_cache=pack_cache).generate([PROMPT], SHORT)
    wait_for_keepers()
    assert len(kept(home)) == (pack_cache is None)


def test_another_choice_of_weights_and_a_changed_file_are_packed_anew(
    tiny_path: Path, tmp_path: Path, home: Path
) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(tiny_path.read_bytes())
    os.utime(model, (1e9, 1e9))

    def is_mapped(**options: Any) -> bool:
        llm = LLM(model, threads=1, pack_cache=True, **options)
        llm.generate([PROMPT], SHORT)
        wait_for_keepers()
        return llm.info.weights_mapped

    assert [is_mapped(), is_mapped()] == [False, True]
    assert [is_mapped(weights="w8"), is_mapped(weights="w8"), is_mapped()] == [False, True, True]
    content = bytearray(model.read_bytes())
    content[-100] ^= 1
    model.write_bytes(content)
    os.utime(model, (1e9 + 1, 1e9 + 1))
    assert [is_mapped(), is_mapped()] == [False, True]
    assert len(kept(home)) == 3


def test_nothing_is_written_before_the_first_answer_has_ended(
    tiny_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = LLM(tiny_path, threads=1, pack_cache=True)
    gate = Gate(llm, monkeypatch)
    stream = llm.stream(PROMPT, SHORT)
    reader = threading.Thread(target=list, args=(stream,))
    reader.start()
    for _ in range(3):
        gate.wait()
        assert not llm.loop.at_rest.is_set()
        assert kept(home) == []
        gate.let_one_pass()
    gate.open()
    reader.join()
    wait_for_keepers()
    assert len(kept(home)) == 1
    assert llm.loop.at_rest.is_set()


def test_an_llm_that_is_dropped_without_an_answer_keeps_nothing(
    tiny_path: Path, home: Path
) -> None:
    llm = LLM(tiny_path, threads=1, pack_cache=True)
    assert len(keepers()) == 1
    del llm
    gc.collect()
    wait_for_keepers()
    assert kept(home) == []


class Slices:
    """In the place of a file: three slices, and who has written how many."""

    def __init__(self) -> None:
        self.at = threading.Semaphore(0)  # a slice is to be written
        self.written = 0
        self.ended = False

    def write(self, weights: object, before_slice: Any) -> None:
        try:
            for _ in range(3):
                self.at.release()
                before_slice()
                self.written += 1
        finally:
            self.ended = True


def keeper_of(slices: Slices, at_rest: threading.Event) -> PackKeeper:
    weights = SimpleNamespace(nbytes=lambda: 1)
    keeper = PackKeeper(SimpleNamespace(file=slices, weights=weights), at_rest)  # type: ignore[arg-type]
    keeper.start()
    assert slices.at.acquire(timeout=PATIENCE)
    return keeper


def test_a_request_stops_the_writing_and_the_end_of_the_llm_lets_it_finish() -> None:
    slices, at_rest = Slices(), threading.Event()
    write, busy = slices.write, threading.Event()

    def one_slice(weights: object, before_slice: Any) -> None:
        def before() -> None:
            before_slice()
            if not busy.is_set():
                at_rest.clear()  # a request comes while the first slice is written
                busy.set()

        write(weights, before)

    slices.write = one_slice  # type: ignore[method-assign]
    keeper = keeper_of(slices, at_rest)
    assert slices.written == 0
    at_rest.set()
    assert slices.at.acquire(timeout=PATIENCE)  # the second is to be written, and waits
    assert busy.is_set()
    assert (slices.written, slices.ended) == (1, False)
    keeper.end()
    wait_for_keepers()
    assert (slices.written, slices.ended) == (3, True)


def test_an_llm_that_goes_in_a_forked_process_touches_no_lock_of_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thread that is not there may have had it when the process forked."""
    slices, at_rest = Slices(), threading.Event()
    keeper = keeper_of(slices, at_rest)
    with monkeypatch.context() as forked, at_rest._cond:  # type: ignore[attr-defined]
        forked.setattr(os, "getpid", lambda: -1)
        keeper.end()
        keeper.end_with_python()
    assert not at_rest.is_set()
    keeper.end()
    wait_for_keepers()
    assert (slices.written, slices.ended) == (0, True)


def test_ctrl_c_at_the_end_of_python_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    slices, at_rest = Slices(), threading.Event()
    keeper = keeper_of(slices, at_rest)
    keeper._begun = True  # there was an answer
    pressed: list[int] = []
    wait = keeper.ended.wait
    monkeypatch.setattr(at_rest, "set", lambda: None)  # a slice takes long

    def press() -> None:
        if not pressed:
            pressed.append(1)
            raise KeyboardInterrupt
        threading.Event.set(at_rest)
        wait()

    monkeypatch.setattr(keeper.ended, "wait", press)
    keeper.end_with_python()
    assert (slices.written, slices.ended) == (0, True)
    wait_for_keepers()
    assert keepers() == []


_PROGRAM = """
import os, sys
from octavo import LLM, SamplingParams
from octavo.weights import huge_pages
huge_pages.share_of_huge = lambda data: 1.0  # whatever the file system has
llm = LLM(sys.argv[1], threads=1, pack_cache=True)
llm.generate([[5, 6, 7, 8]], SamplingParams(max_tokens=4))
if os.fork() == 0:
    sys.exit(0)  # the parent's thread is not here, and nothing is waited for
os.wait()
print(llm.info.weights_mapped)
"""


def test_a_program_that_ends_at_once_has_kept_them_and_so_has_one_that_forked(
    tiny_path: Path, home: Path
) -> None:
    for mapped in ("False\n", "True\n"):
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _PROGRAM, str(tiny_path)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, mapped, "")
    assert len(kept(home)) == 1


_BROKEN_OFF = """
import os, signal, sys, threading, time
from octavo import LLM, SamplingParams
from octavo.weights import pack_cache

def main_waits_at_the_end():
    frame, names = sys._current_frames()[threading.main_thread().ident], set()
    while frame is not None:
        names.add(frame.f_code.co_name)
        frame = frame.f_back
    return {"end_with_python", "wait"} <= names

def never_done(file, key, model, entries, weights, before_slice):
    file.write(b"a slice")
    while not main_waits_at_the_end():
        before_slice()
    time.sleep(0.1)  # it waits in the system, too: Python sees no signal that comes just before
    os.kill(os.getpid(), SIGNAL)
    while True:
        before_slice()

def leave(*_):
    raise SystemExit

signal.signal(signal.SIGTERM, leave)
pack_cache.write_packed = never_done
llm = LLM(sys.argv[1], threads=1, pack_cache=True)
llm.generate([[5, 6, 7, 8]], SamplingParams(max_tokens=4))
"""


@pytest.mark.parametrize("signal", ["SIGINT", "SIGTERM"])
def test_a_signal_at_the_end_of_python_leaves_nothing_half_written(
    tiny_path: Path, home: Path, signal: str
) -> None:
    """Python 3.11 takes a thread for ended once Ctrl-C has broken off its `join`: the process ended
    in the middle of a slice."""
    code = f"from signal import {signal} as SIGNAL\n{_BROKEN_OFF}"
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tiny_path)], stderr=subprocess.PIPE, timeout=PATIENCE
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert (home / "packed").is_dir()
    assert kept(home) == []
