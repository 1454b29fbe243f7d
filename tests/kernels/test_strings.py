"""Strings of a GGUF array: equal to those that Python reads one by one, up to one that is none."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.kernels import native
from tests.kernels.guard import guarded

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"])).map(str.encode), max_size=6)
PIECES = st.lists(st.text().map(lambda text: text.encode("utf-8", "surrogatepass")), max_size=6)


def one_by_one(data: bytes, begin: int, count: int) -> tuple[list[str], int]:
    found: list[str] = []
    at = begin
    while len(found) < count and len(data) - at >= 8:
        end = at + 8 + struct.unpack_from("<Q", data, at)[0]
        if end > len(data):
            break
        try:
            found.append(data[at + 8 : end].decode())
        except UnicodeDecodeError:
            break
        at = end
    return found, at


def array(texts: list[bytes]) -> bytes:
    return b"".join(struct.pack("<Q", len(text)) + text for text in texts)


@given(texts=TEXTS | PIECES, before=st.binary(max_size=9), cut=st.integers(0, 9))
def test_strings_equal_those_read_one_by_one(texts: list[bytes], before: bytes, cut: int) -> None:
    data = before + array(texts)
    data = data[: max(len(data) - cut, len(before))]
    for count in range(len(texts) + 2):
        got = native.read_strings(np.frombuffer(data, np.uint8), len(before), count)
        assert got == one_by_one(data, len(before), count)


@pytest.mark.parametrize("length", [2, 2**31, 2**63 - 8, 2**63, 2**64 - 8, 2**64 - 1])
def test_a_length_beyond_the_end_is_where_it_stops(length: int) -> None:
    data = array([b"ab"]) + struct.pack("<Q", length) + b"c"
    assert native.read_strings(np.frombuffer(data, np.uint8), 0, 2) == (["ab"], 10)


def test_nothing_behind_the_end_is_read() -> None:
    data = array([b"ab", b"cd"])
    assert native.read_strings(guarded(np.frombuffer(data, np.uint8)), 0, 9) == (["ab", "cd"], 20)


@pytest.mark.parametrize("begin", [-1, 11, 2**62])
def test_a_begin_that_is_not_in_the_data_is_refused(begin: int) -> None:
    with pytest.raises(ValueError, match="begin"):
        native.read_strings(np.frombuffer(array([b"ab"]), np.uint8), begin, 1)
