"""A promise: work that another thread does, and the future of its outcome."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def promise(work: Callable[[], T]) -> tuple[Future[T], Callable[[], None]]:
    """What will hold the outcome of `work`, and what does it, unless that was cancelled before."""
    outcome: Future[T] = Future()

    def run() -> None:
        if not outcome.set_running_or_notify_cancel():
            return
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    return outcome, run
