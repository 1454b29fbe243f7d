"""Which C++20 compiler builds the native core, and zig's as the one that is always there.

Comes in: the environment (CXX, PATH). Goes out: a compiler command, or a folder of wrappers around
the `ziglang` wheel's compiler. Knows nothing about CMake, wheels or kernels; imports only the
standard library, because it runs before anything is installed.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path

ZIG_REQUIREMENT = "ziglang>=0.13"
ZIG_NOTICE = (
    "octavo: no C++20 compiler found: using ziglang's; the first build takes 3 minutes or more "
    "(it compiles its own C++ runtime)"
)

# The version floor is that of cmake/flags.cmake; an older compiler counts as none.
PROBE = """\
#if defined(__clang__) ? __clang_major__ < 15 : __GNUC__ < 12
#error too old
#endif
#include <bit>
#include <span>
int lanes(std::span<const unsigned> x) { return std::popcount(x.front()); }
"""


class CompilerError(SystemExit):
    """CXX names a compiler that cannot build Octavo; the message says what to do."""


def find_compiler(environ: Mapping[str, str]) -> str | None:
    """The command of the first working C++20 compiler, or None. CXX, when set, must work."""
    chosen = environ.get("CXX", "").strip()
    if chosen:
        if not compiles(chosen, environ):
            raise CompilerError(
                f"octavo: CXX={chosen} cannot compile C++20 (gcc >= 12 or clang >= 15 can): "
                "set CXX to one that can, or unset it to let the build choose"
            )
        return chosen
    return next((name for name in ("c++", "g++", "clang++") if compiles(name, environ)), None)


def compiles(command: str, environ: Mapping[str, str]) -> bool:
    """Whether `command` turns a small C++20 program into a shared library."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.cpp")
        source.write_text(PROBE)
        library = str(Path(folder, "probe.so"))
        flags = ["-std=c++20", "-fPIC", "-shared", str(source), "-o", library]
        try:
            done = subprocess.run(
                [*shlex.split(command), *flags], env=dict(environ), capture_output=True, check=False
            )
        except OSError:
            return False
        return done.returncode == 0


def write_zig_toolchain(folder: Path, machine: str | None = None) -> dict[str, str]:
    """Write cc, c++, ar, ranlib wrappers into `folder`; return the variables that choose them.

    They build for `machine`, by default this one. `folder` must outlive the build: CMake remembers
    the paths.
    """
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        raise CompilerError(
            "octavo: no C++20 compiler found and the ziglang wheel is not installed: "
            f'install g++ >= 12 or run pip install "{ZIG_REQUIREMENT}"'
        )
    zig = shlex.quote(str(Path(spec.origin).parent / "zig"))
    folder.mkdir(parents=True, exist_ok=True)
    target = f"-target {zig_target(machine)}" + ("" if machine else python_headers())
    for name in ("cc", "c++"):
        write_script(folder / name, f'exec {zig} {name} {target} "$@"')
    for name in ("ar", "ranlib"):
        write_script(folder / name, f'exec {zig} {name} "$@"')
    tools = [f"-DCMAKE_AR={folder / 'ar'}", f"-DCMAKE_RANLIB={folder / 'ranlib'}"]
    return {
        "CC": str(folder / "cc"),
        "CXX": str(folder / "c++"),
        "CMAKE_ARGS": shlex.join(tools),
    }


def zig_target(machine: str | None = None) -> str:
    """A fixed libc floor: zig's default target is the exact machine it runs on."""
    machine = (machine or platform.machine()).lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    musl = "musl" in str(sysconfig.get_config_var("SOABI"))
    return f"{machine}-linux-musl" if musl else f"{machine}-linux-gnu.2.28"


def python_headers() -> str:
    """Return what makes zig find the headers of Debian's own Python, one of which includes another
    by a path below the system's headers. zig searches none of these; they come after its own."""
    include, of_machine = sysconfig.get_path("include"), sysconfig.get_config_var("MULTIARCH")
    if not include or not of_machine:
        return ""
    system, name = Path(include).parent, Path(include).name
    if not (system / of_machine / name / "pyconfig.h").is_file():
        return ""
    return f" -idirafter {shlex.quote(str(system))}"


def write_script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def say(message: str) -> None:
    """Print to stderr, and to the terminal itself where pip captures a build's output."""
    print(message, file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        return
    try:
        with open("/dev/tty", "w") as terminal:
            print(f"\n{message}", file=terminal)
    except OSError:
        pass  # no terminal: stderr has it already


if __name__ == "__main__":
    if find_compiler(os.environ) is None:
        print(ZIG_NOTICE, file=sys.stderr)
        print(ZIG_REQUIREMENT)
