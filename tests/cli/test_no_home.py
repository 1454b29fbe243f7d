"""A user without a home folder: what needs none runs, and what needs one says so in one line."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from tests.batch_job.lines import plain
from tests.cli.result import GREEDY, BatchFiles, Octavo, refused
from tests.cli.tiny_model import TINY

UNKNOWN = "this user has no home folder"
OF_NOBODY = "OCTAVO_HOME=~nobody-here is of no user"
SET = "set OCTAVO_HOME to a folder for models and caches"
ANEW = "until then the model is prepared anew at every start"


@pytest.fixture(params=[None, "~nobody-here"])
def why(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """No HOME and an id that the system does not know, or a user that it does not know."""

    def unknown(*_: object) -> None:
        raise KeyError

    for name in ("HOME", "XDG_CACHE_HOME", "OCTAVO_HOME"):
        monkeypatch.delenv(name, raising=False)
    if request.param is not None:
        monkeypatch.setenv("OCTAVO_HOME", request.param)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)
    return f"{UNKNOWN if request.param is None else OF_NOBODY}: {SET}"


def test_a_model_given_by_path_runs_and_one_note_says_what_it_goes_without(
    octavo: Octavo, why: str, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    there = list(models.iterdir())
    assert octavo("run", TINY, "hello", *GREEDY).code == 0
    assert caplog.messages == [f"{why}; {ANEW}"]
    assert octavo("inspect", TINY).code == 0
    assert list(models.iterdir()) == there  # no folder of the name "~"


def test_a_batch_runs(batch: BatchFiles, why: str) -> None:
    assert batch.write(plain("a", "hi", max_tokens=2)).run().code == 0


def test_what_is_about_the_library_needs_a_home(octavo: Octavo, why: str) -> None:
    assert octavo("list") == octavo("pull", "smollm2") == refused(why, code=1)
    needs = "smollm2 needs a folder for models: set OCTAVO_HOME to one"
    assert octavo("run", "smollm2", "hi") == refused(needs, code=1)
