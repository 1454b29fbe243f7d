"""RequestOptions: ranges, and what is taken as what."""

from __future__ import annotations

import re

import numpy as np
import pytest

from octavo.errors import UsageError
from octavo.request import RequestOptions


def test_numbers_of_numpy_are_taken_and_none_is_the_default() -> None:
    given = RequestOptions(priority=np.int64(-2), deadline_ms=np.uint16(50))
    assert repr(given) == repr(RequestOptions(priority=-2, deadline_ms=50))
    unset = RequestOptions(priority=None, deadline_ms=None, cache_salt=None)  # type: ignore[arg-type]
    assert unset == RequestOptions()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"priority": 0.5}, "priority=0.5: expected a whole number from -2147483648"),
        ({"deadline_ms": 0}, "deadline_ms=0: expected a whole number from 1 to 2147483647"),
        ({"deadline_ms": True}, "deadline_ms=True"),
        ({"cache_salt": 5}, "cache_salt=5: expected a string"),
    ],
)
def test_a_bad_value_names_its_field(option: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        RequestOptions(**option)
