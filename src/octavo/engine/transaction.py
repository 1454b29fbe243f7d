"""Transaction: what stands around the four verbs when something raises.

A step commits nothing before its update. So what raised is taken back, and the requests of
the step are run one at a time, which cannot change a bit of them: one that raises again ends with
its error, the others never notice. If none does, no request caused the error: it is raised to the
caller, and all requests live on. What is no Exception (Ctrl-C, the end of the process) is raised at
once, after everything was set right.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from octavo.engine.live import LiveRequests
from octavo.engine.nouns import Request
from octavo.engine.scheduler import Scheduler
from octavo.engine.step import StepResult


class Transaction:
    """A context manager; a class, since a generator that a traceback keeps would clean up when that
    goes, in the middle of another change."""

    def __init__(
        self,
        requests: LiveRequests,
        scheduler: Scheduler | None = None,
        run_alone: Callable[[Request], StepResult] | None = None,
    ) -> None:
        """`scheduler` knows which requests the step planned. With `run_alone`, which steps one of
        them, those that raise when they run alone end; without it the error is raised."""
        self._requests = requests
        self._scheduler = scheduler
        self._run_alone = run_alone

    def __enter__(self) -> None:
        if self._scheduler is not None:
            self._scheduler.planned = ()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if error is None:
            return False
        self._requests.recover()
        if not isinstance(error, Exception) or self._run_alone is None or self._scheduler is None:
            return False
        try:
            guilty = [each for each in self._scheduler.planned if self._fails_alone(each)]
        except BaseException:
            self._requests.recover()
            raise
        return bool(guilty)

    def _fails_alone(self, request: Request) -> bool:
        if request.finished or not request.is_running:
            return False  # the turn of another one ended it, or took its place
        assert self._run_alone is not None
        try:
            self._requests.result = self._run_alone(request)  # told with what comes after it
        except Exception as error:
            self._requests.fail(request, error)
            return True
        return False
