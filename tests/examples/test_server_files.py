"""The files that run the server: their commands are ones that there are, and their paths agree."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from octavo.cli.app import run
from octavo.config import parse_bytes
from octavo.server.config import ServerConfig

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "server"
CONTAINER = (FOLDER / "Containerfile").read_text()
UNIT = (FOLDER / "octavo.service").read_text()
CACHE = "/var/cache/octavo"
PLAN = re.compile(r"^#   octavo (plan .*)$", re.MULTILINE)


class Serving(NamedTuple):
    program: str
    arguments: list[str]
    memory: str  # the limit, as `--memory` of `octavo plan` has it


def of_container() -> Serving:
    (entry,) = json.loads(found(r"^ENTRYPOINT (.*)$", CONTAINER))
    memory = found(r"--memory (\S+) -v", CONTAINER)
    return Serving(entry, json.loads(found(r"^CMD (.*)$", CONTAINER)), memory.upper() + "iB")


def of_unit() -> Serving:
    program, *arguments = shlex.split(setting("ExecStart"))
    return Serving(program, arguments, setting("MemoryMax") + "iB")


def found(pattern: str, text: str) -> str:
    (only,) = re.findall(pattern, text, re.MULTILINE)
    assert isinstance(only, str)
    return only


def setting(name: str) -> str:
    return found(rf"^{name}=(.*)$", UNIT)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[ServerConfig]:
    """What `octavo serve` would have served by."""
    configs: list[ServerConfig] = []
    monkeypatch.setattr("octavo.server.serve.serve", lambda config, *_: configs.append(config))
    return configs


@pytest.mark.parametrize("serving", [of_container(), of_unit()], ids=["container", "unit"])
def test_the_command_is_taken_as_it_stands(
    serving: Serving, taken: list[ServerConfig], tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.touch()
    assert run([each.replace("%d/keys", str(keys)) for each in serving.arguments]) == 0
    (config,) = taken
    assert config.port == 8000
    assert config.is_local is (serving == of_unit())


@pytest.mark.parametrize(
    ("text", "serving"), [(CONTAINER, of_container()), (UNIT, of_unit())], ids=["container", "unit"]
)
def test_the_memory_is_what_the_plan_says(
    text: str, serving: Serving, smollm2_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The plan fits into the limit, and the cache has what it counts for the users."""
    (command,) = PLAN.findall(text)
    plan = shlex.split(command)
    assert plan[-2:] == ["--memory", serving.memory]
    assert run([*plan, "--json"]) == 0
    planned = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert planned["fits"] is True
    serve = serving.arguments
    given = serve[serve.index("--kv-memory") + 1]
    assert parse_bytes("kv_memory", given) == planned["kv_bytes"]
    assert serve[serve.index("--context") + 1] == str(planned["context"])
    assert serve[1] == plan[1] == "smollm2"


def test_only_the_cache_is_written_to() -> None:
    assert found(r"^ENV OCTAVO_HOME=(.*)$", CONTAINER) == CACHE
    assert found(r"^VOLUME (.*)$", CONTAINER) == CACHE
    assert f"install -d -o octavo {CACHE}" in CONTAINER
    assert "--read-only --tmpfs /tmp --cap-drop all" in CONTAINER
    assert f"-v octavo-cache:{CACHE}" in CONTAINER
    assert found(r"^USER (.*)$", CONTAINER) == "octavo"
    assert setting("Environment") == f"OCTAVO_HOME={CACHE}"
    assert f"/var/cache/{setting('CacheDirectory')}" == CACHE
    assert (setting("DynamicUser"), setting("ProtectSystem")) == ("yes", "strict")
    assert setting("LoadCredential") == "keys:/etc/octavo/keys"


def test_the_program_is_where_it_was_installed() -> None:
    for serving, text in ((of_container(), CONTAINER), (of_unit(), UNIT)):
        folder = serving.program.removesuffix("/bin/octavo")
        assert f"-m venv {folder} " in text
        assert f"{folder}/bin/pip install" in text


def test_what_the_build_needs_is_copied() -> None:
    copied = re.findall(r"^COPY ((?!--from).*) \S+$", CONTAINER, re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    assert all((ROOT / name).exists() for name in names)
    assert {"pyproject.toml", "CMakeLists.txt", "build_backend", "cmake", "csrc", "src"} <= names


def test_a_stop_leaves_time_to_drain() -> None:
    serve = of_unit().arguments
    assert float(serve[serve.index("--drain") + 1]) < float(setting("TimeoutStopSec"))
