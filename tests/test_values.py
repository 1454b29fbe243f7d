"""Values of a caller become Python's own before they are checked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from octavo.values import plain, settle


@dataclass(frozen=True)
class Options:
    size: int = 3
    limit: float | None = 2.5
    name: str = "x"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.array(7), 7),
        (np.array([1, 2]), [1, 2]),
        (np.str_("a"), "a"),
    ],
)
def test_numpy_is_taken_as_python(given: object, found: object) -> None:
    assert plain(given) == found
    assert type(plain(given)) is type(found)


def test_what_is_not_numpy_stays_what_it_is() -> None:
    for value in (None, True, 3, 0.5, "a", b"a", (np.int64(1),), Options()):
        assert plain(value) is value


def test_none_is_the_default_where_it_is_no_value() -> None:
    options = Options(size=None, limit=None, name=np.str_("y"))  # type: ignore[arg-type]
    settle(options)
    assert options == Options(3, None, "y")
