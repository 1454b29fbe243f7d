"""LoadConfig: every choice about a load, parsed once and frozen. Each has a flag."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from octavo.errors import UsageError
from octavo.options import check, described, option

Endpoint = Literal["completions", "chat"]
_MOST = 2**31 - 1


def _parse_rate(name: str, value: object) -> float:
    """Read a rate as it is typed. JSON and Python's checks know no inf, so it has its own."""
    try:
        rate = float(str(value))
    except ValueError:
        rate = math.nan
    if not rate > 0:
        raise UsageError(f"{name}={value!r}: expected requests a second, or inf for all at once")
    return rate


@described
@dataclass(frozen=True, slots=True)
class LoadConfig:
    """Choices about a load; lengths are in tokens."""

    requests: int = option(64, "Requests; default 64", 1, 10**6)
    rate: float = option(
        math.inf,
        "Requests a second, by a Poisson process; default inf: all at once",
        parse=_parse_rate,
    )
    concurrency: int | None = option(None, "Requests open at once; default: no limit", 1, _MOST)
    dataset: str | None = option(
        None, "File of conversations in ShareGPT's JSON; default: random words, as long as those"
    )
    shared: int = option(0, "Tokens that all prompts begin with; default 0", 0, 2**24)
    own: int | None = option(
        None, "Tokens of each prompt after them; default: as ShareGPT's", 1, 2**24
    )
    tokens: int | None = option(None, "New tokens of each answer; default: as ShareGPT's", 1, 2**24)
    max_tokens: int | None = option(
        None, "New tokens of an answer at most; not with --tokens", 1, 2**24
    )
    endpoint: Endpoint = option("completions", "completions (default) or chat")
    model: str | None = option(None, "Model that is asked; default: the one of /v1/models")
    api_key: str | None = option(
        None, "Key of the server; default: OCTAVO_API_KEY or OPENAI_API_KEY"
    )
    ignore_eos: bool = option(
        True, "Answers go on to their length; a server may not know the field"
    )
    seed: int = option(0, "Seed of lengths, words and arrivals; default 0", 0, 2**63 - 1)
    timeout: float = option(
        600.0, "Seconds of silence that end a request; default 600", 0, 86400, above=True
    )

    def __post_init__(self) -> None:
        check(self)
        if self.dataset is not None and not Path(self.dataset).is_file():
            raise UsageError(f"dataset={self.dataset!r}: no such file")
        if self.dataset is not None and self.own is not None:
            raise UsageError(f"own={self.own}: prompts of --dataset are as long as they are")
        if self.tokens is not None and self.max_tokens is not None:
            raise UsageError(f"max_tokens={self.max_tokens}: answers of --tokens do not differ")
