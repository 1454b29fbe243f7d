"""The text in a custom tool's arguments, however they are cut."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.protocol.responses.custom_input import CustomInput


def read(*pieces: str) -> str:
    reader = CustomInput()
    return "".join([*map(reader.push, pieces), reader.finish()])


@given(st.text(), st.booleans(), st.lists(st.integers(0, 60), max_size=6))
def test_the_text_comes_out_however_the_json_is_cut(
    text: str, ascii_only: bool, cuts: list[int]
) -> None:
    whole = json.dumps({"input": text}, ensure_ascii=ascii_only)
    at = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    assert read(*(whole[a:b] for a, b in pairwise(at))) == text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"input": "broken o', "broken o"),
        (r'{"input": "a\u00', "a"),
        (r'{"input": "\ud83d", "more": 1}', "\ufffd"),
        (r'{"input": "\ud83dA"}', "\ufffdA"),
        ('{"input": "one"}, {"input": "two"}', "one"),
        ('{"text": "x"}', '{"text": "x"}'),
        ("{}", "{}"),
    ],
)
def test_what_is_broken_off_or_of_another_shape(arguments: str, text: str) -> None:
    assert read(arguments) == read(*arguments) == text
