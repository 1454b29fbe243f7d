"""Which lines of a file hold a request."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from octavo.batch_job.source import Source
from octavo.errors import UsageError
from tests.batch_job.lines import chat, line, plain, write


def test_lines_are_numbered_as_in_an_editor_and_read_again_when_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "in", "", plain("a", "one"), "  ", chat("b", "zwei\u2028drei"))
    with Source(path) as source:
        assert len(source) == 2
        assert [source.number(0), source.number(1)] == [2, 4]
        assert source.read(1).request.messages == ({"role": "user", "content": "zwei\u2028drei"},)
        assert (source.read(0).custom_id, source.read(0).request.prompts) == ("a", ("one",))
        assert (source.models, source.first_chat, source.faults) == ({"m": 2}, 4, {})


def test_a_file_of_nothing_has_no_lines(tmp_path: Path) -> None:
    for text in ("", "\n \n"):
        (tmp_path / "in").write_text(text)
        with Source(tmp_path / "in") as source:
            assert (len(source), source.models, source.first_chat) == (0, {}, None)


@pytest.mark.parametrize(
    ("first", "found"),
    [(plain("b", "two"), [(1, "b"), (2, "a")]), ("", [(2, "a")])],  # a mark alone is a blank line
)
def test_windows_files_begin_with_a_mark_and_end_lines_with_two_characters(
    tmp_path: Path, first: str, found: list[tuple[int, str]]
) -> None:
    (tmp_path / "in").write_bytes(f"\ufeff{first}\r\n{plain('a', 'one')}".encode())
    with Source(tmp_path / "in") as source:
        assert not source.faults
        lines = [(source.number(i), source.read(i).custom_id) for i in range(len(source))]
        assert lines == found


def test_utf_16_is_refused_once_and_a_mark_in_the_middle_in_its_line(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(f"\ufeff{plain('a', 'one')}\n".encode("utf-16-le"))
    with pytest.raises(UsageError, match="in is UTF-16: save it as UTF-8"):
        Source(tmp_path / "in")
    # A mark that does not begin the file is no JSON.
    marked = "\ufeff" + plain("b", "two")
    with Source(write(tmp_path / "in", plain("a", "one"), marked)) as source:
        assert list(source.faults) == [1]


def test_lines_at_fault_are_kept_with_number_and_id(tmp_path: Path) -> None:
    hot, twice = plain("b", "one", temperature="hot"), plain("a", "two")
    path = write(tmp_path / "in", "{", plain("a", "one"), hot, twice, line("c", "/v2", {}))
    with Source(path) as source:
        found = {f.number: (f.custom_id, str(f.error)) for f in source.faults.values()}
    assert list(source.faults) == [0, 2, 3, 4]
    assert found == {
        1: (None, "not JSON: Expecting property name enclosed in double quotes at character 3"),
        3: ("b", "temperature='hot': expected a number from 0 to 100"),
        4: ("a", "custom_id 'a' is that of line 2: give each its own"),
        5: ("c", "url: expected /v1/chat/completions or /v1/completions"),
    }


def test_only_requests_name_models_and_the_first_chat_is_known(tmp_path: Path) -> None:
    wrong = plain("a", "one", model="wrong", n=0)
    path = write(tmp_path / "in", wrong, plain("b", "x"), chat("c", "y"), chat("d", "z"))
    with Source(path) as source:
        assert (source.models, source.first_chat) == ({"m": 2}, 3)


def test_equal_requests_have_equal_keys_in_any_file(tmp_path: Path) -> None:
    one = Source(write(tmp_path / "1", plain("a", "x"), plain("b", "x"), "{", "{"))
    two = Source(write(tmp_path / "2", "{", plain("b", "x").replace(": ", ":"), plain("a", "x")))
    with one, two:
        assert one.keys[:2] == two.keys[:0:-1]
        assert len({*one.keys, *two.keys}) == 5  # two requests, and lines at fault are each its own
        assert one.digest != two.digest


def test_a_file_that_changes_while_it_runs_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "in", plain("a", "one"))
    with Source(path) as source:
        for changed in (plain("a", "two"), "{"):
            write(path, changed)
            with pytest.raises(UsageError, match="was changed while it ran: run it again to go on"):
                source.read(0)


def test_what_cannot_be_read_twice_is_refused(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(write_end)
    for path, why in [
        (tmp_path / "none", r"cannot read .*: No such file or directory"),
        (tmp_path, r"cannot read .*: Is a directory"),
        (Path(f"/dev/fd/{read_end}"), "is a pipe, and lines are read twice: give a file"),
    ]:
        with pytest.raises(UsageError, match=why):
            Source(path)
    os.close(read_end)
