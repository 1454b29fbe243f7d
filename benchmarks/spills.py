"""Registers that the micro-kernels spill, and calls they make, counted in the object code.

    python -m benchmarks.spills build/cpython-311

Reads what objdump says of the objects of a build; runs nothing. A spill is an instruction inside a
loop that has a vector register and an address on the stack. Which ones are allowed, and why, is
benchmarks.allowed_spills, counted with the compiler named there: of others only calls are judged.
The level base is not: it writes 16 lanes in 4 registers of the plainest machine.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks.allowed_spills import ALLOWED, COMPILER, Allowed

KERNELS = {  # by source, the functions whose loops are the work
    "matmul_integer.cpp": ("tile",),
    "matmul_bf16x2.cpp": ("tile",),
    "matmul_float.cpp": ("tile",),
    "matmul_unpacked.cpp": ("add_tile",),
    "attention.cpp": (
        "tile_scores",
        "tile_values",
        "dot_scores",
        "dot_values",
        "signed_scores",
        "signed_values",
        "nibble_scores",
        "nibble_values",
    ),
}
JUDGED = ("avx2", "avxvnni", "avx512", "avx512bf16")

_HEAD = re.compile(r"^[0-9a-f]+ <(.*)>:$")
_NAME = re.compile(r"(\w+)<(.*)>\(")  # "void octavo::avx512::tile<0, 2, 6>(unsigned ..."
_INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(\S.*)$")
_JUMP = re.compile(r"^j\w+\s+(?:0x)?([0-9a-f]+)\b")


@dataclass(frozen=True, slots=True)
class Counted:
    level: str
    source: str
    function: str  # "tile<0, 2, 6>"
    spills: int
    calls: int


def count(level: str, source: str, listing: str) -> Iterator[Counted]:
    """Count the spills and calls of each kernel in what objdump printed."""
    for block in re.split(r"\n\s*\n", listing):
        lines = block.strip().splitlines()
        head = _HEAD.match(lines[0]) if lines else None
        name = _NAME.search(head[1].replace(f"octavo::{level}::", "")) if head else None
        if name is None or name[1] not in KERNELS.get(source, ()):
            continue
        code = [(int(m[1], 16), m[2]) for m in map(_INSTRUCTION.match, lines) if m]
        spills, calls = _spills(code), sum(text.startswith("call") for _, text in code)
        yield Counted(level, source, f"{name[1]}<{name[2].strip()}>", spills, calls)


def _spills(code: list[tuple[int, str]]) -> int:
    begin = code[0][0]
    jumps = [(int(m[1], 16), at) for at, text in code if (m := _JUMP.match(text))]
    loops = [(target, at) for target, at in jumps if begin <= target <= at]
    framed = any(re.match(r"mov\w*\s+%rsp,\s*%rbp", text) for _, text in code)
    stack = re.compile(r"\(%r(?:sp|bp)\b" if framed else r"\(%rsp\b")
    return sum(
        bool(stack.search(text)) and any(a <= at <= b for a, b in loops)
        for at, text in code
        if re.search(r"%[yz]mm", text)
    )


def complaints(found: list[Counted], allowed: tuple[Allowed, ...], judged: bool) -> list[str]:
    """Calls, spills beyond what is allowed, and, as they hide new ones, allowances too many."""
    lines, used = [], set()
    for each in found:
        if each.calls:
            lines.append(f"{_text(each)}: {each.calls} calls, expected none")
        rows = [row for row in allowed if _covers(row, each)]
        used.update(rows if each.spills else [])
        most = max((row.most for row in rows), default=0)
        if judged and each.spills > most:
            lines.append(f"{_text(each)}: {each.spills} spills in loops, allowed are {most}")
    idle = [row for row in allowed if row not in used]
    if judged:
        lines += [f"allowed_spills: {row.level} {row.function} spills nothing" for row in idle]
    return lines


def _covers(row: Allowed, each: Counted) -> bool:
    return (
        fnmatchcase(each.level, row.level)
        and each.source == row.source
        and fnmatchcase(each.function, row.function)
    )


def _text(each: Counted) -> str:
    return f"{each.level} {each.source} {each.function}"


def disassemble(tool: str, object_file: Path) -> str:
    command = [tool, "-d", "-C", "--no-show-raw-insn", str(object_file)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def compiler_of(tool: str, object_file: Path) -> str:
    """As the object has it: "GCC: (Debian 12.2.0-14) 12.2.0"."""
    command = [tool, "-s", "-j", ".comment", str(object_file)]
    shown = subprocess.run(command, capture_output=True, text=True).stdout  # some have none
    words = re.findall(r"^ [0-9a-f]+ ((?:[0-9a-f]{2,8} ){1,4})", shown, re.MULTILINE)
    raw = bytes.fromhex("".join(words).replace(" ", ""))
    return raw.strip(b"\0").split(b"\0")[0].decode(errors="replace") or "unknown"


def main() -> None:
    build = Path(sys.argv[1])
    tool = shutil.which("objdump") or shutil.which("llvm-objdump")
    if tool is None:
        print("spills: not counted: neither objdump nor llvm-objdump is here (zig brings none)")
        return
    found: list[Counted] = []
    compiler = "unknown"
    for level in JUDGED:
        for source in KERNELS:
            path = build / "CMakeFiles" / f"kernels_{level}.dir/csrc/kernels/{source}.o"
            if path.exists():
                compiler = compiler_of(tool, path)
                found += count(level, source, disassemble(tool, path))
    if not found:
        sys.exit(f"spills: {build}: expected objects of {', '.join(JUDGED)}, found no kernel")
    judged = bool(re.search(COMPILER, compiler))
    lines = complaints(found, ALLOWED, judged)
    spilling = [each for each in found if each.spills]
    print(f"spills: {len(found)} kernels by {compiler}, {len(spilling)} spill, {len(lines)} wrong")
    if not judged:
        print(f"spills: not judged: the allowances are those of {COMPILER}")
    for line in lines:
        print(line)
    sys.exit(1 if lines else 0)


if __name__ == "__main__":
    main()
