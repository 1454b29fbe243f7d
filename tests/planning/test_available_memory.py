"""What the system, cgroups and the limits of a process leave, read from trees of files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from octavo.planning.available_memory import available_memory

MIB = 2**20
FREE = 20_000 * MIB
NO_V1_LIMIT = 9223372036854771712  # how v1 says that there is none
V1_MOUNT = "36 31 0:35 {top} /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
V2_MOUNT = "41 31 0:38 {top} {mount} rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"


def left(root: Path, files: dict[str, object]) -> int:
    """Return the MiB that a machine with these files beside a plain meminfo has left."""
    files = {"proc/meminfo": f"MemTotal: 9 kB\nMemAvailable:  {FREE // 1024} kB\n", **files}
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else f"{content}\n".encode())
    found, rest = divmod(available_memory(root), MIB)
    assert rest == 0
    return found


def v2(folder: str, limit: object, used: int, clean: int, **more: object) -> dict[str, object]:
    values = {
        "memory.max": limit,
        "memory.current": used * MIB,
        "memory.stat": f"anon 5\nfile {clean * MIB}\ninactive_file {clean * MIB}\nactive_file 7",
        **{name.replace("_", "."): value for name, value in more.items()},
    }
    return {f"{folder}/{name}": value for name, value in values.items()}


def v1(folder: str, limit: int, used: int, clean: int) -> dict[str, object]:
    stat = f"inactive_file 1\ntotal_cache {clean * MIB}\ntotal_inactive_file {clean * MIB}"
    return {
        f"{folder}/memory.limit_in_bytes": limit,
        f"{folder}/memory.usage_in_bytes": used * MIB,
        f"{folder}/memory.stat": stat,
    }


def test_without_limits_it_is_what_the_system_has(tmp_path: Path) -> None:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < available_memory(tmp_path) <= whole  # without /proc, its free pages
    assert left(tmp_path, {}) == 20_000
    assert left(tmp_path, {"proc/self/cgroup": "0::/"}) == 20_000
    # Where what is reserved counts, the promise of the system is a limit.
    lines = f"MemAvailable: {FREE // 1024} kB\nCommitLimit: 5242880 kB\nCommitted_AS: 1048576 kB"
    assert left(tmp_path, {"proc/meminfo": lines, "proc/sys/vm/overcommit_memory": 1}) == 20_000
    assert left(tmp_path, {"proc/sys/vm/overcommit_memory": 2, "proc/meminfo": lines}) == 4096


def test_pages_of_files_are_not_used_memory_v2(tmp_path: Path) -> None:
    """A container of 1 GiB that uses 60 MiB, and has read files of 940 MiB."""
    container = v2("sys/fs/cgroup", 1024 * MIB, used=1000, clean=940)
    mount = V2_MOUNT.format(top="/", mount="/sys/fs/cgroup")
    assert left(tmp_path, {"proc/self/cgroup": "0::/", "proc/self/mountinfo": mount}) == 20_000
    assert left(tmp_path, container) == 1024 - 60


def test_limits_of_all_cgroups_above_hold_v2(tmp_path: Path) -> None:
    base = {"proc/self/cgroup": "0::/a/b", **v2("sys/fs/cgroup/a/b", 4000 * MIB, 1000, 200)}
    assert left(tmp_path, base) == 3200
    assert left(tmp_path, v2("sys/fs/cgroup/a", 2000 * MIB, 1700, 100)) == 400
    assert left(tmp_path, v2("sys/fs/cgroup/a", 1000 * MIB, 1700, 100)) == 0
    assert left(tmp_path, v2("sys/fs/cgroup/a", "max", 1700, 100)) == 3200
    assert left(tmp_path, v2("sys/fs/cgroup/other", 1 * MIB, 0, 0)) == 3200
    assert left(tmp_path, v2("sys/fs/cgroup/a", "max", 1700, 100, memory_high=1800 * MIB)) == 200


def test_v1_is_read_where_it_is_mounted(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/docker/abc\n1:cpu:/docker/abc",
        "proc/self/mountinfo": V1_MOUNT.format(top="/"),
        **v1("sys/fs/cgroup/memory/docker/abc", 512 * MIB, used=300, clean=240),
        **v1("sys/fs/cgroup/memory/docker", NO_V1_LIMIT, used=9_000, clean=0),
        **v1("sys/fs/cgroup/memory", NO_V1_LIMIT, used=9_000, clean=0),
    }
    assert left(tmp_path, files) == 512 - 60
    assert left(tmp_path, v1("sys/fs/cgroup/memory/docker", 9_100 * MIB, 9_000, 10)) == 110


@pytest.mark.parametrize("top", ["/docker/abc", "/docker", "/../../elsewhere"])
def test_a_container_that_sees_only_its_own_cgroup_v1(tmp_path: Path, top: str) -> None:
    """Its path names what is outside; its limit is at the mount, or below where it sees more."""
    folder = "sys/fs/cgroup/memory/abc" if top == "/docker" else "sys/fs/cgroup/memory"
    files = {
        "proc/self/cgroup": "11:hugetlb:/docker/abc\n4:cpu,memory:/docker/abc\n0::/docker/abc",
        "proc/self/mountinfo": V1_MOUNT.format(top=top),
        **v1(folder, 512 * MIB, used=112, clean=0),
    }
    assert left(tmp_path, files) == 400


def test_a_path_that_is_not_below_the_mount_means_the_mount_v2(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/pod/abc", **v2("sys/fs/cgroup", 512 * MIB, 112, 0)}
    assert left(tmp_path, files) == 400


def test_a_hybrid_has_memory_in_v1_beside_an_empty_v2(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "9:name=systemd:/s\n4:memory:/s\n0::/s",
        "proc/self/mountinfo": (
            "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
            "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
            + V1_MOUNT.format(top="/")
            + V2_MOUNT.format(top="/", mount="/sys/fs/cgroup/unified")
        ),
        "sys/fs/cgroup/unified/s/cgroup.procs": 1,
        **v1("sys/fs/cgroup/memory/s", 700 * MIB, 200, 100),
    }
    assert left(tmp_path, files) == 600
    assert left(tmp_path, v2("sys/fs/cgroup/unified/s", 500 * MIB, 0, 0)) == 500


LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max data size             {data:<20} unlimited            bytes
Max address space         {space:<20} unlimited            bytes
Max realtime timeout      unlimited            unlimited            us"""


def test_limits_of_the_process_less_what_it_has(tmp_path: Path) -> None:
    status = f"Name:\toctavo\nVmSize:\t  {300 * 1024} kB\nVmData:\t  {100 * 1024} kB\n"

    def limited(data: object, space: object) -> int:
        text = LIMITS.format(data=data, space=space)
        return left(tmp_path, {"proc/self/limits": text, "proc/self/status": status})

    assert limited("unlimited", "unlimited") == 20_000
    assert limited("unlimited", 1000 * MIB) == 700
    assert limited(500 * MIB, 1000 * MIB) == 400
    assert limited(500 * MIB, 200 * MIB) == 0


def test_what_makes_no_sense_limits_nothing(tmp_path: Path) -> None:
    files: dict[str, object] = {
        "proc/self/cgroup": b"\xff\n:\nmemory\n0::/a\n4:memory",
        "proc/self/mountinfo": b"\xff - \n - cgroup2\n1 2 - cgroup2 x y\n1 2 3 4 5 - cgroup\n",
        "proc/self/limits": b"Max address space\nMax data size \xff \xff",
        "proc/self/status": b"VmSize:\nVmData: many kB",
        "proc/sys/vm/overcommit_memory": b"",
        "sys/fs/cgroup/a/memory.max": b"-1",
        "sys/fs/cgroup/a/memory.current": b"\xff",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": b"lots",
    }
    assert left(tmp_path, files) == 20_000


def test_ulimit_v_is_seen_by_the_process_that_has_it() -> None:
    script = (
        "import resource\n"
        "from octavo.planning.available_memory import available_memory, _numbers, Path\n"
        "size = _numbers(Path('/proc/self/status'))['VmSize'] * 1024\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20), resource.RLIM_INFINITY))\n"
        "print(available_memory())\n"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.stderr == ""
    assert 32 * MIB < int(found.stdout) <= 64 * MIB
