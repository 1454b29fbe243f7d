"""What the messages have in common."""

from __future__ import annotations

from octavo.errors import counted


def test_a_count_is_in_words_one_is_singular_and_thousands_are_apart() -> None:
    said = [counted(n, "new token") for n in (0, 1, 2, 2048)]
    assert said == ["0 new tokens", "1 new token", "2 new tokens", "2,048 new tokens"]
