"""Signals that come at one call of a method, whichever thread makes it: the main thread gets
them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest

__all__ = ["HANDLED", "Ring", "TooLateError", "alarm", "on_alarm"]


class TooLateError(TimeoutError):
    """TimeoutError is an OSError: what catches those must let it through."""


def on_alarm(number: int, frame: object) -> None:
    raise TooLateError


HANDLED: dict[int, type[BaseException]] = {
    signal.SIGALRM: TooLateError,
    signal.SIGINT: KeyboardInterrupt,
}


@pytest.fixture
def alarm() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, on_alarm)
    yield
    signal.signal(signal.SIGALRM, before)


class Ring:
    """Signals at the nth call of a method, before it or after it; of the calls that count."""

    def __init__(
        self,
        owner: Any,
        name: str,
        *,
        nth: int = 1,
        number: int = signal.SIGALRM,
        after: bool = False,
        counts: Callable[[], bool] = lambda: True,
    ) -> None:
        self.rang = False
        self._owner, self._name, self._real = owner, name, getattr(owner, name)
        real, left = self._real, nth

        def ringing(*args: Any, **options: Any) -> Any:
            nonlocal left
            left -= counts()
            if left or self.rang:
                return real(*args, **options)
            result = real(*args, **options) if after else None
            self.rang = True
            os.kill(os.getpid(), number)
            return result if after else real(*args, **options)

        setattr(owner, name, ringing)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        setattr(self._owner, self._name, self._real)
