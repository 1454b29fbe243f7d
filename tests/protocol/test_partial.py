"""How much of a tag a text may end with."""

from __future__ import annotations

import pytest

from octavo.protocol.partial import beginning_at_end


@pytest.mark.parametrize(
    ("text", "length"),
    [("", 0), ("a", 0), ("a<", 1), ("a<b", 2), ("a<b>", 0), ("<b<b", 2), ("a[[", 2), ("[", 1)],
)
def test_the_longest_beginning_counts_and_a_whole_tag_is_none(text: str, length: int) -> None:
    assert beginning_at_end(text, ("<b>", "[[c")) == length
    assert beginning_at_end(text, ()) == 0
