"""Models on the hub by the command line, from a hub on this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from octavo import LLM, SamplingParams
from tests.cli.process import environ, run, run_python
from tests.cli.result import GREEDY, Octavo, refused
from tests.cli.tiny_model import TINY
from tests.weights.hf.written import directory_of
from tests.weights.hub.fake_hub import COMMIT, FakeHub, files_of, serve
from tests.weights.hub.pointed import cache_in, point_at

NAME = "hf:owner/tiny"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    files = files_of(directory_of(Path(TINY), tmp_path / "tiny"))
    files |= {"tiny-F32.gguf": Path(TINY).read_bytes(), "tiny-other.gguf": b"x"}
    with serve(FakeHub({COMMIT: files})) as running, cache_in(monkeypatch, tmp_path / "hf"):
        point_at(monkeypatch, running.url)
        yield running


def test_a_process_reads_its_environment_fetches_and_then_needs_no_network(
    hub: FakeHub, octavo: Octavo, tmp_path: Path
) -> None:
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "own"), "no_proxy": "127.0.0.1"}
    told = {name: value for name, value in environ().items() if name[:3] != "HF_"} | own
    command = (sys.executable, "-m", "octavo", "run", NAME, "hi", *GREEDY)
    first = run(*command, env=told)
    lines = first.err.splitlines()
    assert first.code == 0, first.err
    assert lines[0].startswith(f"downloading {NAME}, all but its weights: ")
    assert any(line.startswith(f"downloading {NAME}: ") for line in lines)
    assert first.out == octavo("run", str(tmp_path / "tiny"), "hi", *GREEDY).out
    assert not any(each.endswith(".gguf") for each in hub.gets())
    hub.asked.clear()
    again = run(*command, env={**told, "HF_HUB_OFFLINE": "1"})
    assert (again.code, again.out, hub.asked) == (0, first.out, [])
    (figures,) = again.err.splitlines()
    assert figures.startswith("[")


def test_pull_fetches_the_file_that_is_named_and_other_verbs_find_it(
    hub: FakeHub, octavo: Octavo
) -> None:
    name = f"{NAME}:tiny-F32.gguf"
    pulled = octavo("pull", name, "--json")
    path = Path(pulled.json["path"])
    assert pulled.code == 0
    assert pulled.json == {"name": name, "path": str(path)}
    assert path.read_bytes() == Path(TINY).read_bytes()
    again = octavo("pull", name)
    assert (again.out, again.err) == (f"{name} is here: {path}\n", "")
    for verb in (["inspect", name], ["explain", name], ["plan", name], ["run", name, "hi"]):
        assert octavo(*verb).code == 0
    assert hub.gets() == ["tiny-F32.gguf"]


def test_python_takes_the_name_too(hub: FakeHub, tmp_path: Path) -> None:
    greedy = SamplingParams(temperature=0, max_tokens=4)
    named, given = (
        LLM(model, threads=1).generate("hi", greedy)[0] for model in (NAME, tmp_path / "tiny")
    )
    assert named.outputs[0].token_ids == given.outputs[0].token_ids


def test_of_several_files_one_must_be_named(hub: FakeHub, octavo: Octavo) -> None:
    del hub.commits[COMMIT]["model.safetensors"]
    size = Path(TINY).stat().st_size / 2**20
    assert octavo("plan", NAME) == refused(
        f"{NAME} has 2 GGUF models; give one as {NAME}:FILE: tiny-F32.gguf ({size:.1f} MiB), "
        "tiny-other.gguf (0.0 MiB)"
    )


def test_a_bar_on_a_terminal_begins_with_the_download(
    hub: FakeHub, octavo: Octavo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octavo.cli.loading.sys.stderr.isatty", lambda: True, raising=False)
    first = octavo("pull", NAME)
    assert f"downloading {NAME}" in first.err
    assert octavo("pull", NAME).err == ""


def test_no_name_on_the_hub_is_bad_usage(octavo: Octavo) -> None:
    for verb in ("inspect", "pull"):
        result = octavo(verb, "hf:gpt2")
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith("octavo: 'hf:gpt2' is no name on the hub: expected hf:owner")


NOT_LOADED = """
import sys
from octavo.cli.app import run
assert run(["inspect", sys.argv[1]]) == 0
loaded = {name.partition(".")[0] for name in sys.modules}
print(sorted(loaded & {"huggingface_hub", "httpx", "httpx2", "requests", "tqdm"}))
"""


def test_other_starts_do_not_load_what_fetches() -> None:
    result = run_python(NOT_LOADED, TINY)
    assert (result.code, result.out.splitlines()[-1]) == (0, "[]"), result.err
