"""A user without a home folder: what needs none runs, and what needs one says so in one line."""

from __future__ import annotations

import json
import pwd

import pytest

UNKNOWN = (
    "octavo: this user has no home folder: set OCTAVO_HOME to a folder for models and caches\n"
)
OF_NOBODY = (
    "octavo: OCTAVO_HOME=~nobody-here is of no user: set OCTAVO_HOME to a folder for models and "
    "caches\n"
)
ANEW = "until then the model is prepared anew at every start"


@pytest.fixture(params=[None, "~nobody-here"])
def why(request, monkeypatch):
    """No HOME and an id that the system does not know, or a user that it does not know."""

    def unknown(*_: object) -> None:
        raise KeyError

    for name in ("HOME", "XDG_CACHE_HOME", "OCTAVO_HOME"):
        monkeypatch.delenv(name, raising=False)
    if request.param is not None:
        monkeypatch.setenv("OCTAVO_HOME", request.param)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)
    return UNKNOWN if request.param is None else OF_NOBODY


def test_a_model_given_by_path_runs_and_one_note_says_what_it_goes_without(
    octavo, why, tiny, caplog, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    result = octavo("run", tiny, "hello", "--max-tokens", "2", "--temperature", "0")
    assert result.code == 0
    reason = why.removeprefix("octavo: ").removesuffix("\n")
    assert caplog.messages == [f"{reason}; {ANEW}"]
    assert octavo("inspect", tiny).code == 0
    assert list(tmp_path.iterdir()) == []  # no folder of the name "~"


def test_a_batch_runs(octavo, why, tiny, tmp_path):
    body = {"model": "m", "prompt": "hi", "max_tokens": 2}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": body}
    (tmp_path / "in.jsonl").write_text(json.dumps(line))
    where = (str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"))
    assert octavo("batch", *where, "--model", tiny).code == 0


@pytest.mark.parametrize("arguments", [("list",), ("pull", "smollm2")])
def test_what_is_about_the_library_needs_a_home(octavo, why, arguments):
    result = octavo(*arguments)
    assert (result.code, result.out, result.err) == (1, "", why)


def test_a_library_model_needs_a_home(octavo, why):
    result = octavo("run", "smollm2", "hi")
    assert (result.code, result.out) == (1, "")
    assert result.err == "octavo: smollm2 needs a folder for models: set OCTAVO_HOME to one\n"
