"""Lines whose reader is slow, gone, or has no room."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from octavo.cli import aside
from octavo.cli.aside import Aside


def test_what_is_written_comes_in_order(tmp_path: Path) -> None:
    with (tmp_path / "lines").open("w+", encoding="ascii") as file:
        with closing(Aside(file)) as lines:
            for number in range(1000):
                lines.write(f"{number} é\n")
            assert not lines.isatty()
        file.seek(0)
        assert file.read() == "".join(f"{number} ?\n" for number in range(1000))


def test_who_writes_waits_for_no_reader() -> None:
    reader, writer = os.pipe()
    with open(writer, "w", encoding="utf-8") as file, open(reader, "rb") as back:
        lines = Aside(file)
        for _ in range(aside.MOST + 2000):
            lines.write("x" * 99 + "\n")  # more than it keeps, and a pipe holds
        found, told = b"", b"lines were lost: nobody took them in time\n"
        for _ in range(1000):
            found += back.read1(1 << 16)
            lines.write("more\n")
            if told in found:
                break
        assert told in found
        lines.close()


def test_no_room_and_no_reader_are_no_errors() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as gone, open("/dev/full", "w") as full:
        for stream in (gone, full):
            with closing(Aside(stream)) as lines:
                lines.write("x\n")


def test_after_its_end_nothing_reaches_a_file_that_was_opened_since(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with open(reader, "rb") as back:
        with open(writer, "w", encoding="utf-8") as file:
            lines = Aside(file)
            for _ in range(2000):
                lines.write("x" * 99 + "\n")  # more than a pipe holds
            lines.close()
        with (tmp_path / "other").open("w+b", buffering=0) as other:
            assert other.fileno() == writer
            while back.read1(1 << 16):
                pass  # until the last of them is written
            assert other.read() == b""
