"""Fixtures that many tests share."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# Before numpy is loaded: the twins' matrices are small, and its threads would wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from benchmarks.data import folder
from octavo.environment import home
from octavo.errors import ModelNotFoundError
from octavo.weights import library
from octavo.weights.download import pull

# No test times anything: on a busy machine an example may take any time.
hypothesis.settings.register_profile(
    "untimed",
    parent=hypothesis.settings.get_profile(hypothesis.settings.get_current_profile_name()),
    deadline=None,
)
hypothesis.settings.load_profile("untimed")


EVERY_CPU = os.sched_getaffinity(0)


def pytest_configure() -> None:
    """Each of xdist's workers keeps to one CPU, and so do the engines that it makes: threads of two
    workers that wait at barriers for each other's CPU take most of a run's time."""
    worker, cpus = os.environ.get("PYTEST_XDIST_WORKER", ""), sorted(EVERY_CPU)
    if worker:
        os.sched_setaffinity(0, {cpus[int(worker.removeprefix("gw")) % len(cpus)]})


def pytest_xdist_auto_num_workers() -> int:
    """Two of xdist's workers for each CPU: one runs while the other's tests wait."""
    return 2 * len(EVERY_CPU)


@pytest.fixture(scope="module")
def every_cpu() -> Iterator[None]:
    """For modules whose threads have to run at once."""
    kept = os.sched_getaffinity(0)
    os.sched_setaffinity(0, EVERY_CPU)
    yield
    os.sched_setaffinity(0, kept)


@pytest.fixture(autouse=True, scope="session")
def ctrl_c() -> Iterator[None]:
    """A shell starts its background jobs with SIGINT ignored; the tests of Ctrl-C need it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True, scope="session")
def users_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's home, of which tests take only models. What they cache is in a folder of their
    own, and weights are packed by what is tested, not mapped as an earlier run packed them."""
    theirs, ours = home(), tmp_path_factory.mktemp("home")
    (ours / "models").symlink_to(theirs.absolute() / "models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OCTAVO_HOME", str(ours))
        patch.setattr("octavo.loaded_model.KEPT_FROM", sys.maxsize)
        yield theirs


@pytest.fixture(scope="session")
def smollm2_path(users_home: Path) -> Path:
    """SmolLM2's GGUF from the library, pulled on first use."""
    try:
        return library.find("smollm2", home=users_home)
    except ModelNotFoundError:
        return pull("smollm2", home=users_home)


@pytest.fixture(scope="session")
def gemma3_path(users_home: Path) -> Path:
    """gemma3-270m's GGUF from the library, for tests that run where somebody has pulled it."""
    try:
        return library.find("gemma3-270m", home=users_home)
    except ModelNotFoundError:
        pytest.skip("gemma3-270m is not here: octavo pull gemma3-270m")


@pytest.fixture(scope="session")
def public_data() -> Path:
    """The folder of traces, questions and texts that benchmarks/README.md names."""
    found = folder()
    if found is None:
        pytest.skip("OCTAVO_DATA names no folder of public data")
    return found


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--octavo-long-fuzz",
        action="store_true",
        help="random requests for about an hour, other ones each time (tests/exactness)",
    )
