"""The bar of requests that are done, for a terminal. rich is imported when one is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


def requests_bar(*, auto_refresh: bool) -> Progress:
    """On standard error; `auto_refresh`: a thread draws it ten times a second."""
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        speed_estimate_period=600,  # an answer may take a minute
        auto_refresh=auto_refresh,
    )
