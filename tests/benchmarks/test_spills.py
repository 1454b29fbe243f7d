"""What counts as a spill or a call in the object code of a kernel, and which complaints follow."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks import spills
from benchmarks.allowed_spills import ALLOWED, Allowed
from benchmarks.spills import Counted, complaints, count

SOURCE = "matmul_integer.cpp"
LISTING = """
tile.o:     file format elf64-x86-64

Disassembly of section .text:

0000000000000000 <void octavo::avx512::tile<0, 2, 6>(unsigned char const*, float*)>:
   0:\tpush   %rbp
   1:\tmov    %rsp,%rbp
   4:\tvmovaps %zmm1,-0x40(%rbp)
   b:\tvmovaps -0x80(%rbp),%zmm2
  12:\tvpdpbusd 0x40(%rsp),%zmm3,%zmm4
  1a:\tmov    0x8(%rsp),%rax
  20:\tvmovaps (%rax),%zmm5
  26:\tjne    b <void octavo::avx512::tile<0, 2, 6>(unsigned char const*, float*)+0xb>
  28:\tvmovaps -0x40(%rbp),%zmm1
  2f:\tret

0000000000000030 <void octavo::avx512::tile<1, 2, 6>(unsigned char const*, float*)>:
  30:\tvmovaps (%rbp),%zmm2
  36:\tcall   3b <memcpy>
  3b:\tja     30 <void octavo::avx512::tile<1, 2, 6>(unsigned char const*, float*)>
  3d:\tjmp    70 <other>

0000000000000070 <octavo::avx512::finish(float*)>:
  70:\tvmovaps (%rsp),%zmm2
  76:\tjmp    70 <octavo::avx512::finish(float*)>
"""


def test_vectors_on_the_stack_inside_loops_are_spills_and_rbp_counts_as_a_frame_only() -> None:
    assert list(count("avx512", SOURCE, LISTING)) == [
        Counted("avx512", SOURCE, "tile<0, 2, 6>", spills=2, calls=0),
        Counted("avx512", SOURCE, "tile<1, 2, 6>", spills=0, calls=1),
    ]
    assert list(count("avx512", "rows.cpp", LISTING)) == []


def test_what_is_not_allowed_or_allowed_in_vain_is_told() -> None:
    found = [
        Counted("avx512", SOURCE, "tile<0, 2, 6>", spills=3, calls=0),
        Counted("avx512", SOURCE, "tile<1, 2, 6>", spills=0, calls=1),
    ]
    row = Allowed("avx512*", SOURCE, "tile<0, 2, *>", 3, "why")
    idle = Allowed("avx512*", SOURCE, "tile<1, *>", 9, "why")
    call = f"avx512 {SOURCE} tile<1, 2, 6>: 1 calls, expected none"
    spill = f"avx512 {SOURCE} tile<0, 2, 6>: 3 spills in loops, allowed are 0"
    assert complaints(found, (row,), judged=True) == [call]
    assert complaints(found, (), judged=True) == [spill, call]
    assert complaints(found, (), judged=False) == [call]
    assert complaints(found, (row, idle), judged=True) == [
        call,
        "allowed_spills: avx512* tile<1, *> spills nothing",
    ]


def test_every_allowance_has_a_reason() -> None:
    assert all(row.most > 0 and len(row.why) > 20 for row in ALLOWED)


def test_a_folder_without_objects_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("objdump") is None and shutil.which("llvm-objdump") is None:
        pytest.skip("needs objdump")
    monkeypatch.setattr("sys.argv", ["spills", str(tmp_path)])
    with pytest.raises(SystemExit, match="expected objects of avx2"):
        spills.main()


def test_a_real_object_says_who_compiled_it_and_what_spills(tmp_path: Path) -> None:
    tool, compiler = shutil.which("objdump"), shutil.which("g++")
    if tool is None or compiler is None:
        pytest.skip("needs objdump and g++")
    source, made = tmp_path / "tile.cpp", tmp_path / "tile.o"
    source.write_text(
        "typedef float v16 __attribute__((vector_size(64)));\n"
        "namespace octavo::avx512 {\n"
        "template <int N> __attribute__((noinline)) void tile(v16* x, int n) {\n"
        "  for (int i = 0; i < n; ++i) {\n"
        "    volatile v16 kept = x[i];\n"
        "    x[i] = kept;\n"
        "  }\n"
        "}\n"
        "template void tile<7>(v16*, int);\n"
        "}\n"
    )
    command = [compiler, "-O2", "-mavx512f", "-Wno-psabi", "-c", str(source), "-o", str(made)]
    subprocess.run(command, check=True)
    (found,) = count("avx512", SOURCE, spills.disassemble(tool, made))
    assert (found.function, found.calls) == ("tile<7>", 0)
    assert found.spills >= 2
    assert spills.compiler_of(tool, made).startswith("GCC: ")
