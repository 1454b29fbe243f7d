"""What was typed in chats, kept in a file."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from octavo.cli import history

TEXTS = ["one", "two\nlines\u2028 of \x1b[2J", "\udcff"]


def test_what_was_said_is_there_the_next_time_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "home" / "chat_history"
    assert history.load(path) == []
    for text in TEXTS:
        history.append(path, text)
    assert history.load(path) == TEXTS
    assert path.read_bytes().isascii()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_damaged_line_costs_itself_alone_and_a_folder_of_no_use_no_chat(tmp_path: Path) -> None:
    path = tmp_path / "chat_history"
    path.write_bytes(b'"one"\n"half of a li\n\xff\xfe\n7\n"two"\n')
    assert history.load(path) == ["one", "two"]
    (tmp_path / "home").write_text("a file")
    history.append(tmp_path / "home" / "chat_history", "one")
    assert history.load(tmp_path / "home" / "chat_history") == []


def test_a_long_file_keeps_the_last_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "KEPT", 3)
    path = tmp_path / "chat_history"
    for number in range(6):
        history.append(path, f"{number}")
    assert history.load(path) == ["3", "4", "5"]
    assert path.read_text().count("\n") == 6
    history.append(path, "6")
    assert history.load(path) == ["4", "5", "6"]
    assert path.read_text() == '"4"\n"5"\n"6"\n'
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["chat_history"]
