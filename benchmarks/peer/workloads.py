"""What the engines are asked to do: requests in tokens, and what is counted of them.

Prompts are random tokens drawn from a seed, the same for every engine and new in every round, so
that no cache between rounds can help. Imports nothing but the standard library: it is read in the
interpreters of all peers.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

# prompt: tokens of the prompt over the time to the first new one; new: those made while all
# requests make them, over that time; all: new tokens of all requests over the time of everything.
Counted = Literal["prompt", "new", "all"]


class Lengths(NamedTuple):
    prompt: int  # with what is shared
    new: int


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    group: str  # those that one figure shows
    size: str  # what it is called there
    counted: Counted
    requests: tuple[Lengths, ...]  # offered together
    shared: int = 0  # tokens that all prompts begin with

    @property
    def context(self) -> int:
        return max(each.prompt + each.new for each in self.requests)

    @property
    def new_tokens(self) -> int:
        return sum(each.new for each in self.requests)

    def prompts(self, vocabulary: int, seed: int) -> list[list[int]]:
        draw = random.Random(f"{self.name} {seed}")
        first = [draw.randrange(vocabulary) for _ in range(self.shared)]
        return [
            first + [draw.randrange(vocabulary) for _ in range(each.prompt - self.shared)]
            for each in self.requests
        ]


def from_dict(data: Mapping[str, Any]) -> Workload:
    """What `dataclasses.asdict` and JSON make of one, back."""
    requests = tuple(Lengths(*each) for each in data["requests"])
    return Workload(**{**data, "requests": requests})


def _prefill(tokens: int) -> Workload:
    name = f"prefill-{tokens}"
    return Workload(name, "prefill", f"{tokens:,} tokens", "prompt", (Lengths(tokens, 1),))


def _decode(before: int, new: int) -> Workload:
    name = f"decode-{before}"
    return Workload(name, "decode", f"after {before:,}", "new", (Lengths(before, new),))


def _batch(streams: int) -> Workload:
    name, lengths = f"batch-{streams}", Lengths(128, 64)
    return Workload(name, "batch", f"{streams} streams", "new", (lengths,) * streams)


def _chat(requests: int) -> Workload:
    """Lengths like ShareGPT's: lognormal with means 161 and 338, from 4 to 1,024 tokens."""
    draw = random.Random("lengths")
    lengths = tuple(
        Lengths(_lognormal(draw, mean=161), _lognormal(draw, mean=338)) for _ in range(requests)
    )
    return Workload(f"chat-{requests}", "chat", f"{requests} requests", "all", lengths)


def _shared(requests: int, shared: int) -> Workload:
    lengths = (Lengths(shared + 64, 64),) * requests
    size = f"{requests} of {shared:,} shared + 64"
    return Workload(f"shared-{requests}", "shared prefix", size, "all", lengths, shared)


def _lognormal(draw: random.Random, mean: float, sigma: float = 1.0) -> int:
    found = mean * math.exp(draw.gauss(0, sigma) - sigma * sigma / 2)
    return min(1024, max(4, round(found)))


WORKLOADS: Mapping[str, Workload] = {
    each.name: each
    for each in (
        *map(_prefill, (512, 2048)),
        _decode(128, 128), *(_decode(before, 64) for before in (512, 2048, 6144)),
        *map(_batch, (8, 16, 32, 64)),
        _chat(64),
        _shared(32, 1024),
    )
}  # fmt: skip
QUICK = ("prefill-512", "decode-128", "batch-16")
