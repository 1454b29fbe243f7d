"""Values of a caller become Python's own before they are checked."""

from __future__ import annotations

import math

import numpy as np
import pytest

from octavo.errors import UsageError
from octavo.values import check_number, check_whole, is_list, plain


@pytest.mark.parametrize(
    ("given", "found"),
    [(np.int64(3), 3), (np.float32(0.5), 0.5), (np.bool_(True), True), (np.array(7), 7),
     (np.array([1, 2]), [1, 2]), (np.str_("a"), "a")],
)  # fmt: skip
def test_numpy_is_taken_as_python(given: object, found: object) -> None:
    assert plain(given) == found
    assert type(plain(given)) is type(found)


def test_what_is_not_numpy_stays_what_it_is() -> None:
    for value in (None, True, 3, 0.5, "a", b"a", (np.int64(1),), object()):
        assert plain(value) is value


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "x=0: expected a number above 0 and at most 2"),
     (2.5, "x=2.5: expected a number above 0 and at most 2"),
     (math.nan, "x=nan: expected a number"),
     (10**400, "expected a number above 0 and at most 2"),
     (True, "x=True: expected a number"),
     ("1", "x='1': expected a number"),
     ([1.0], r"x=\[1.0\]: expected a number"),
     (None, "x=None: expected a number")],
)  # fmt: skip
def test_a_number_out_of_its_range_is_refused(value: object, words: str) -> None:
    check_number("x", 2, 0, 2, above=True)
    with pytest.raises(UsageError, match=words):
        check_number("x", value, 0, 2, above=True)


def test_a_number_without_an_end_may_be_infinite_and_must_fit_a_float() -> None:
    check_number("x", 0, 0)
    check_number("x", math.inf, 0)
    with pytest.raises(UsageError, match=r"expected a number from 0$"):
        check_number("x", 10**400, 0)


@pytest.mark.parametrize("value", [1, 6, 3.0, True, "3", None])
def test_a_whole_number_out_of_its_range_is_refused(value: object) -> None:
    check_whole("x", 2, 2, 5)
    check_whole("x", 5, 2, 5)
    with pytest.raises(UsageError, match=f"x={value!r}: expected a whole number from 2 to 5"):
        check_whole("x", value, 2, 5)


def test_bytes_are_no_list() -> None:
    assert all(map(is_list, ([], (), range(3))))
    assert not any(map(is_list, ("a", b"a", bytearray(b"a"), memoryview(b"a"), {1}, iter([]))))
