"""python -m benchmarks.peers, from its flags to its files, with programs that only play peers."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import peers
from benchmarks.peer.installed import NAMES, place_variable
from benchmarks.synthetic_gguf import write_model
from octavo.bench.machine import Reading
from tests.benchmarks.peer.fakes import script

_BENCH = """
import json
print(json.dumps([{"build_number": 7, "build_commit": "abc", "samples_ts": [300.0, 321.5]}]))
"""


class StillProbe:
    def __init__(self, isa: str, threads: int) -> None:
        assert isa
        assert threads == 1

    def read(self) -> Reading:
        return Reading(1e10, 1e12)


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(peers, "NativeProbe", StillProbe)
    for name in NAMES:
        monkeypatch.delenv(place_variable(name), raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PEER_VLLM", str(tmp_path / "no_python"))
    return str(write_model("tiny", "Q4_0", tmp_path))


def test_a_run_leaves_every_repetition_and_every_reason(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    script(tmp_path / "llama-bench", _BENCH)
    out = tmp_path / "out"
    names = "octavo,llama.cpp,ik_llama.cpp,vllm,octavo"
    flags = ["--only", "prefill-512,batch-8", "--peers", names]
    assert peers.main([model, str(out), *flags, "--repeats", "2", "--threads", "1"]) == 0
    data = json.loads((out / "peers.json").read_text())
    found = {(each["work"], each["peer"]): each for each in data["outcomes"]}
    assert [each["speed"] for each in found["prefill-512", "llama.cpp"]["samples"]] == [321.5] * 2
    assert len(found["batch-8", "octavo"]["samples"]) == 2
    why = "not supported by llama.cpp: llama-batched-bench is not among its programs: build it, too"
    assert found["batch-8", "llama.cpp"]["why"] == why
    assert data["peers"]["llama.cpp"]["version"] == "7 (abc)"
    assert set(data["missing"]) == {"ik_llama.cpp", "vllm"}
    assert data["model"]["weights"] == "Q6_K+F32+Q4_0"
    printed = capsys.readouterr().out
    assert "vllm: not installed: " in printed
    page = (out / "peers.html").read_text()
    assert why in page
    assert "plotly" in page


def test_results_are_drawn_anew_and_put_together(tmp_path: Path, model: str) -> None:
    script(tmp_path / "llama-bench", _BENCH)
    for name, only in (("a", "prefill-512"), ("b", "decode-128")):
        flags = ["--only", only, "--peers", "llama.cpp", "--repeats", "1", "--threads", "1"]
        assert peers.main([model, str(tmp_path / name), *flags]) == 0
    sources = [f"--from={tmp_path / name / 'peers.json'}" for name in "ab"]
    assert peers.main([*sources, str(tmp_path / "both")]) == 0
    data = json.loads((tmp_path / "both" / "peers.json").read_text())
    assert [each["work"] for each in data["outcomes"]] == ["prefill-512", "decode-128"]
    assert len(data["runs"]) == 2


def test_what_was_measured_stays_where_there_is_no_plotly(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script(tmp_path / "llama-bench", _BENCH)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    flags = ["--only", "prefill-512", "--peers", "llama.cpp", "--repeats", "1", "--threads", "1"]
    assert peers.main([model, str(tmp_path / "out"), *flags]) == 0
    assert "no page: pip install 'octavo[plot]'" in capsys.readouterr().out
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["peers.json"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["none", "OUT"], "no file and no library model 'none'"),
        (["--from", "none.json", "OUT"], "No such file or directory: 'none.json'"),
        (["--from", "other.json", "OUT"], "other.json: expected a peers.json that an earlier run"),
        (["--from", "list.json", "OUT"], "list.json: expected a peers.json that an earlier run"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    flags: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.json").write_text('{"outcomes": [], "works": []}')
    (tmp_path / "list.json").write_text("[1]")
    assert peers.main(flags) == 1
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1


def test_where_no_engine_is_nothing_is_written(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--peers", "vllm", "--threads", "1"]
    assert peers.main([model, str(tmp_path / "out"), *flags]) == 1
    assert "none of these engines is here" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["OUT"], "expected a model and OUT, or --from and OUT"),
        (["smollm2", "OUT", "--peers", "octavo,gpu"], "no 'gpu': expected some of octavo,llama"),
        (["smollm2", "OUT", "--repeats", "0"], "'0': expected a whole number from 1"),
    ],
)
def test_flags_that_make_no_sense_are_refused(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        peers.main(flags)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
