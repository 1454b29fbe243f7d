"""The thread pool: everyone runs, barriers hold, an idle pool sleeps, a fork is noticed."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from octavo.errors import UsageError
from octavo.kernels import native, thread_pool

pytestmark = pytest.mark.usefixtures("every_cpu")


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_barriers_hold(threads: int) -> None:
    pool = native.ThreadPool(threads)
    assert pool.size == threads
    for _ in range(5):
        assert pool.run_barriers(200) == 0


def test_callers_take_turns() -> None:
    pool = native.ThreadPool(2)
    with ThreadPoolExecutor(4) as callers:
        assert list(callers.map(pool.run_barriers, [300] * 4)) == [0, 0, 0, 0]


def test_an_idle_pool_uses_no_cpu() -> None:
    pool = native.ThreadPool(4)
    pool.run_barriers(10)
    time.sleep(0.05)  # the workers spin for well under this after a run
    before = resource.getrusage(resource.RUSAGE_SELF)
    time.sleep(0.5)
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < 0.1  # three spinning workers would use 1.5 s


def run(code: str) -> subprocess.CompletedProcess[str]:
    """In a new interpreter, which must end well."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)


FORK = """
import gc, os, sys
from octavo.kernels import native
pool = native.ThreadPool(4)
pool.run_barriers(3)
child = os.fork()
if child == 0:
    try:
        pool.run_barriers(3)
        os._exit(100)
    except RuntimeError as error:
        if "fork" not in str(error):
            os._exit(101)
    new = native.ThreadPool(4)  # its threads may get the handles that the old ones had
    new.run_barriers(3)
    del pool
    gc.collect()
    wrong = new.run_barriers(3)
    del new
    gc.collect()
    os._exit(wrong)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
sys.exit(abs(code) or int(pool.run_barriers(3) != 0))
"""


def test_a_forked_child_is_refused_the_parents_pool_may_drop_it_and_use_its_own() -> None:
    run(FORK)


def test_affinity_bounds_the_usable_cpus() -> None:
    mask = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(mask)})
        assert native.usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, mask)
    assert 1 <= native.usable_cpus() <= len(mask)


CROWDED = """
import os
from octavo.kernels import native
cpus = sorted(os.sched_getaffinity(0))[:2]
os.sched_setaffinity(0, cpus[:1])
pool = native.ThreadPool(2)
pool.run_barriers(1)
me = str(os.getpid())
[worker] = [int(thread) for thread in os.listdir("/proc/self/task") if thread != me]
for _ in range(50):
    os.sched_setaffinity(worker, cpus[:1])  # now it is where the caller is
    os.sched_setaffinity(worker, cpus)
    assert pool.run_barriers(2) == 0
    assert os.sched_getaffinity(worker) == set(cpus)
"""


def test_a_worker_that_leaves_the_callers_cpu_may_still_run_on_all() -> None:
    run(CROWDED)


NO_ROOM = """
import resource
from octavo.kernels import native
pool = native.ThreadPool(3000)
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, hard))  # some hundred stacks of 8 MiB
for _ in range(2):
    try:
        pool.run_barriers(1)
    except RuntimeError as error:
        print("refused", flush=True)
"""


@pytest.mark.address_space
def test_a_pool_whose_threads_cannot_be_made_says_so_each_time() -> None:
    assert run(NO_ROOM).stdout.split() == ["refused", "refused"]


def test_a_pool_is_as_large_as_what_this_process_may_use() -> None:
    assert thread_pool().size == native.usable_cpus()
    assert thread_pool(3).size == 3


def test_no_threads_or_far_more_than_cores_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="threads: expected at least 1, got 0"):
        native.ThreadPool(0)
    monkeypatch.setattr(native, "usable_cpus", lambda: 2)
    assert thread_pool(8).size == 8
    nine = "threads=9: this process may use 2 cores, for at most 8 threads: leave"
    with pytest.raises(UsageError, match=nine):
        thread_pool(9)
    monkeypatch.setattr(native, "usable_cpus", lambda: 1)
    with pytest.raises(UsageError, match=r"threads=1024: .* use 1 core, for at most 4 threads:"):
        thread_pool(1024)


NO_MORE = """
import resource
from octavo.errors import KernelError
from octavo.kernels import thread_pool
size = next(int(line.split()[1]) for line in open("/proc/self/status") if "VmSize" in line)
resource.setrlimit(resource.RLIMIT_AS, (size * 1024 + 100_000, resource.RLIM_INFINITY))
try:
    thread_pool(2)
except KernelError as error:
    print(error)
"""


@pytest.mark.address_space
def test_threads_that_cannot_be_started_are_an_error_that_says_so() -> None:
    done = run(NO_MORE)
    assert done.stderr == ""
    assert done.stdout == (
        "cannot start 2 threads (Resource temporarily unavailable): ask for fewer (--threads, "
        "threads=), or raise the limits (`ulimit -u`, `ulimit -v`)\n"
    )
