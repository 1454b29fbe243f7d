"""A long text through a context that slides, with its sinks and without: does a chat without end
stay what it is?

    python -m benchmarks.endless smollm2 --text FILE [--tokens 20000] [--sliding-context 1024]

Scores the text's first tokens in one sequence, and prints for each part of it the perplexity, the
tokens a second and the most memory that the process had. Sinks: those of `--sinks`, then none. As
one part of a text is harder than another, each is held against the same tokens in ordinary
sequences of no more than the context, each token behind half of it or more.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from octavo import LLM
from octavo.batch import FloatArray

_PART = 2000  # tokens
_LOOKS = 0.02  # seconds between two looks at the memory


@dataclass(frozen=True)
class Part:
    """Holds what some tokens of the text, one after the other, gave."""

    tokens: int
    perplexity: float
    ordinary: float  # perplexity of the same tokens in sequences that end
    tokens_per_second: float
    rss: int  # bytes, at most


class Memory:
    """The most that this process had while so many tokens were computed."""

    def __init__(self, llm: LLM) -> None:
        self.seen: list[tuple[int, int]] = []  # tokens computed, bytes
        self._llm = llm
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def between(self, begin: int, end: int) -> int:
        return max(rss for computed, rss in self.seen if begin <= computed <= end)

    def _look(self) -> None:
        while not self._ends.is_set():
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            computed = sum(record.computed_tokens for record in self._llm.records)
            self.seen.append((computed, pages * os.sysconf("SC_PAGE_SIZE")))
            time.sleep(_LOOKS)


def ordinary(model: str, text: str, tokens: int, context: int) -> FloatArray:
    """Log-probabilities of all tokens but the first, in sequences that begin half a context before
    the tokens that are taken of them."""
    llm = LLM(model, context=context)
    ids, half = _tokens(llm, text)[: tokens + 1], context // 2
    found = [llm.score(ids[:context])]
    for begin in range(context - half, len(ids) - half, half):
        found.append(llm.score(ids[begin : begin + context])[half - 1 :])
    return np.concatenate(found)[: len(ids) - 1]


def measure(
    model: str, text: str, tokens: int, context: int, sinks: int, ends: FloatArray
) -> list[Part]:
    llm = LLM(model, sliding_context=context, sinks=sinks)
    ids = _tokens(llm, text)[: tokens + 1]
    with Memory(llm) as memory:
        logprobs = llm.score(ids)  # (tokens,)
    computed = np.cumsum([record.computed_tokens for record in llm.records])
    seconds = np.cumsum([record.seconds for record in llm.records])
    found = []
    for begin in range(0, len(logprobs) - _PART + 1, _PART):
        at = [float(np.interp(n, [0, *computed], [0, *seconds])) for n in (begin, begin + _PART)]
        slid, plain = (_perplexity(each[begin : begin + _PART]) for each in (logprobs, ends))
        rss = memory.between(begin, begin + _PART)
        found.append(Part(begin + _PART, slid, plain, _PART / (at[1] - at[0]), rss))
    return found


def _tokens(llm: LLM, text: str) -> list[int]:
    return llm.tokenizer.encode(text, add_special=True)


def _perplexity(logprobs: FloatArray) -> float:
    return float(np.exp(-np.mean(logprobs)))


def table(parts: Sequence[Part]) -> str:
    rows = ["tokens   perplexity   ordinary   against it   tok/s   RSS, MB"]
    for part in parts:
        change = part.perplexity / part.ordinary - 1
        rows.append(
            f"{part.tokens:6,}   {part.perplexity:10.2f}   {part.ordinary:8.2f}   "
            f"{change:+10.1%}   {part.tokens_per_second:5,.0f}   {part.rss / 1e6:7,.1f}"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--sliding-context", type=int, default=1024)
    parser.add_argument("--sinks", type=int, default=32)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    asked = given.model, given.text.read_text("utf-8"), given.tokens, given.sliding_context
    ends, results = ordinary(*asked), {}
    for sinks in (given.sinks, 0):
        parts = measure(*asked, sinks, ends)
        results[sinks] = [asdict(part) for part in parts]
        print(f"{given.sliding_context:,} tokens, {sinks} of them sinks\n{table(parts)}\n")
    if given.json:
        print(json.dumps(results))
