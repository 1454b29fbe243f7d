"""`octavo bench serve`: offers a load to a server and prints what it came to."""

from __future__ import annotations

import asyncio
import importlib.util
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Self

from click.exceptions import Exit

from octavo.bench.server_load.config import LoadConfig
from octavo.cli.bar import requests_bar
from octavo.cli.command import Argument
from octavo.cli.figures import columns, duration, number, pairs, percent, wrapped
from octavo.cli.flags import AsJson, flags_of, with_flags
from octavo.cli.screen import Screen, one_line
from octavo.cli.staying import staying
from octavo.environment import openai_api_key
from octavo.errors import UsageError, counted

if TYPE_CHECKING:
    from octavo.bench.server_load.summary import Summary, Times

Url = Annotated[
    str,
    Argument(
        metavar="URL",
        help="The server, as http://HOST:PORT with or without /v1, https://… or unix:FILE.",
    ),
]
_REASONS_SAID = 8  # why requests failed


@with_flags(load=flags_of(LoadConfig))
def serve(url: Url, *, json: AsJson = False, load: dict[str, Any]) -> None:
    """A running server, Octavo's or another's, under a load.

    It speaks OpenAI's API. Requests stream; times are those of a client, from when a request is
    sent. The JSON has the names of `vllm bench serve`. Ends with 1 if all requests failed.
    """
    config = LoadConfig(**load)
    if importlib.util.find_spec("aiohttp") is None:
        raise UsageError("bench serve needs aiohttp: pip install 'octavo[bench]'")
    with staying():
        from octavo.bench.server_load.run import run

    screen, models = Screen(json), list[str]()

    def begins(model: str) -> None:
        models.append(model)
        screen.say(_offered(url, model, config))
        progress.begin()

    key = config.api_key or openai_api_key()
    with _Progress(screen, config.requests) as progress:
        found = asyncio.run(run(url, key, config, begins, progress.count))
    screen.say(_report(found))
    for line in _remarks(found, config):
        screen.say(wrapped(one_line(line)))
    screen.result(
        {"bench": "serve", "url": url, "model": models[0], **_choices(config), **found.to_dict()}
    )
    if not found.completed:
        raise Exit(1)


class _Progress:
    """Counts requests that ended. On a terminal a bar shows it, drawn once a second at most: that
    takes of the machine which is measured."""

    def __init__(self, screen: Screen, requests: int) -> None:
        self._screen = screen
        self._requests = requests
        self._num_ended = 0
        self._drawn = 0.0
        self._bar = requests_bar(auto_refresh=False) if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        if kind is KeyboardInterrupt:
            done = f"{self._num_ended:,} of {self._requests:,} requests had ended"
            self._screen.note(f"stopped: {done}; nothing is measured")

    def begin(self) -> None:
        if self._bar is not None:
            self._bar.add_task("requests", total=self._requests)
            self._bar.start()

    def count(self) -> None:
        self._num_ended += 1
        is_due = self._num_ended == self._requests or time.monotonic() >= self._drawn + 1
        if self._bar is not None and is_due:
            self._bar.update(self._bar.task_ids[0], completed=self._num_ended)
            self._bar.refresh()
            self._drawn = time.monotonic()


def _offered(url: str, model: str, config: LoadConfig) -> str:
    when = "all at once" if config.rate == math.inf else f"{number(config.rate)} a second"
    if config.concurrency is not None:
        when += f", at most {config.concurrency:,} open"
    likes = "ShareGPT's" if config.dataset is None else "the file's"
    prompts = config.dataset or f"random words, lengths as {likes}"
    if config.own is not None:
        prompts = f"random words, {counted(config.own, 'token')}"
    if config.shared:
        prompts = f"{config.shared:,} tokens that all share, then {prompts}"
    answers = f"lengths as {likes}"
    if config.tokens is not None:
        answers = counted(config.tokens, "token")
    elif config.max_tokens is not None:
        answers += f", {counted(config.max_tokens, 'token')} at most"
    return pairs(
        [
            ("server", f"{url}, model {model}"),
            ("requests", f"{config.requests:,} {config.endpoint}, {when}"),
            ("prompts", prompts),
            ("answers", answers),
            ("seed", str(config.seed)),
        ]
    )


def _choices(config: LoadConfig) -> dict[str, object]:
    """Those of the load, without the key; JSON has no infinity."""
    found = asdict(config)
    del found["api_key"], found["model"]
    return {**found, "rate": None if config.rate == math.inf else config.rate}


def _report(found: Summary) -> str:
    if not found.completed:
        return f"\nno request succeeded, {found.failed:,} failed"
    counts = [
        ("successful requests", f"{found.completed:,}"),
        ("failed requests", f"{found.failed:,}"),
        ("duration", duration(found.duration)),
        ("input tokens", _input(found)),
        ("output tokens", f"{found.total_output_tokens:,}"),
        ("requests a second", number(found.request_throughput)),
        ("output tokens a second", number(found.output_throughput)),
        ("all tokens a second", number(found.total_token_throughput)),
    ]
    rows = [
        ["", "mean", "median", "p99"],
        ["to the first token (TTFT)", *_cells(found.ttft)],
        ["a token after it (TPOT)", *_cells(found.tpot)],
        ["between pieces (ITL)", *_cells(found.itl)],
        ["end to end (E2EL)", *_cells(found.e2el)],
    ]
    return f"\n{pairs(counts)}\n\n{columns(rows, indent='')}"


def _input(found: Summary) -> str:
    tokens = f"{found.total_input_tokens:,}"
    if not found.total_cached_tokens:
        return tokens
    share = found.total_cached_tokens / found.total_input_tokens
    return f"{tokens}, {percent(share)} found in the server's cache"


def _cells(times: Times | None) -> list[str]:
    if times is None:
        return ["-"] * 3
    return [duration(each / 1e3) for each in (times.mean, times.median, times.p99)]


def _remarks(found: Summary, config: LoadConfig) -> Iterator[str]:
    """What a reader of the figures has to know beside them."""
    for why, count in found.reasons[:_REASONS_SAID]:
        yield f"{counted(count, 'request')} failed: {why}"
    if rest := found.reasons[_REASONS_SAID:]:
        yield f"{counted(sum(n for _, n in rest), 'request')} failed for other reasons: see --json"
    known = (found.total_cached_tokens or 0) - config.shared * found.completed
    if known > (found.total_input_tokens - config.shared * found.completed) / 2:
        yield (
            "more than half of what the prompts do not share was in the server's cache: it was "
            "asked them before (another --seed asks others), or they are alike"
        )
    if config.ignore_eos and found.total_output_tokens < found.asked_output_tokens:
        yield (
            f"answers are shorter than asked, {found.total_output_tokens:,} of "
            f"{found.asked_output_tokens:,} tokens: the server may not know ignore_eos, or its "
            "context is full"
        )
