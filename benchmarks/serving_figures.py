"""Figures that take time: what the prefix cache and chunked prefill give on a real model.

    python -m benchmarks.serving_figures MODEL [--data DIR] [--only NAME,...] [--rounds N]

Each figure is a ratio of two engines (or two settings) that run in turns in one process, so that a
machine that slows down slows both; medians over rounds, and the least and the largest, with the
goal beside them. Answers are compared: a faster wrong one would end the run.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any, TypeVar

from benchmarks.data import folder as data_folder
from octavo import LLM, RequestOptions, SamplingParams
from octavo.cli.transcript import Transcript
from octavo.engine.nouns import Request

T = TypeVar("T")

NEED_DATA = ("few-shot", "dialogue")
TASK = "snarks"  # the longest of the 3-shot prefixes
QUESTIONS = 64
STREAMS = 6


@dataclass(frozen=True)
class Figure:
    name: str
    goal: str
    values: tuple[float, ...]  # one a round
    unit: str
    note: str = ""

    def line(self) -> str:
        low, high = min(self.values), max(self.values)
        found = f"{median(self.values):.2f} ({low:.2f} to {high:.2f}, n={len(self.values)})"
        return f"{self.name}: {found} {self.unit}; goal {self.goal}. {self.note}".rstrip()


class Pair:
    """The same model twice: with the prefix cache, and without it."""

    def __init__(self, model: str, **options: Any) -> None:
        self.by_cache = {on: LLM(model, prefix_cache=on, **options) for on in (True, False)}

    def rounds(self, count: int) -> Iterator[tuple[LLM, LLM, bool]]:
        """(with, without, whether `with` goes first), the order turned from round to round."""
        for i in range(count):
            yield self.by_cache[True], self.by_cache[False], bool(i % 2)


def few_shot(model: str, data: Path, rounds: int) -> Figure:
    """One prefix of three worked examples before 64 questions, 32 new tokens each, in one batch."""
    folder = data / "questions" / "bbh"
    shots = (folder / f"{TASK}.cot.txt").read_text(encoding="utf-8").split("-----\n", 1)[1]
    examples = json.loads((folder / f"{TASK}.json").read_text(encoding="utf-8"))["examples"]
    prompts = [f"{shots}\n\nQ: {e['input']}\nA: Let's think step by step.\n" for e in examples]
    params = SamplingParams(max_tokens=32, temperature=0, ignore_eos=True)
    ratios, hits = [], []
    for _ in range(rounds):  # new engines: the cache begins empty
        seconds, answers = {}, {}
        for on, llm in Pair(model, context=2048).by_cache.items():
            ids = [llm.encode(p) for p in prompts[:QUESTIONS]]
            _warm_up(llm)
            seconds[on], outputs = _timed(partial(llm.generate, ids, params))
            answers[on] = [o.outputs[0].token_ids for o in outputs]
            if on:
                hits.append(sum(o.usage.cached_tokens for o in outputs) / sum(map(len, ids)))
        assert answers[True] == answers[False], "the cache changed an answer"
        ratios.append(seconds[False] / seconds[True])
    note = f"{TASK}, {QUESTIONS} questions, {median(hits):.1%} of prompt tokens found."
    return Figure("few-shot batch, cache on over off", ">= 3", tuple(ratios), "times", note)


def unique_prompts(model: str, rounds: int, *, kv_memory: str) -> Figure:
    """Prompts that share nothing: what looking up, registering and evicting cost."""
    pair = Pair(model, context=2048, kv_memory=kv_memory)
    vocab = pair.by_cache[True].program.vocab_size
    params = SamplingParams(max_tokens=16, temperature=0, ignore_eos=True)
    draw = random.Random(1)

    def prompts() -> list[list[int]]:
        return [[draw.randrange(vocab) for _ in range(512)] for _ in range(6)]

    for llm in pair.by_cache.values():
        while llm.stats()["kv_blocks_evicted"] == 0 and llm.config.prefix_cache:
            llm.generate(prompts(), params)  # until the pool is full
        llm.generate(prompts(), params)
    losses = []
    for on, off, first in pair.rounds(rounds):
        seconds = {}
        for llm in (on, off) if first else (off, on):
            seconds[llm], _ = _timed(partial(llm.generate, prompts(), params))
        losses.append((seconds[on] / seconds[off] - 1) * 100)
    note = f"6 prompts of 512 random tokens, 16 new each; full pool of {kv_memory}."
    return Figure("unique prompts, time lost with the cache on", "< 1 %", tuple(losses), "%", note)


def dialogues(model: str, data: Path, rounds: int) -> list[Figure]:
    """Time to the first token of the user's fifth turn, the history in the prompt each time: once
    with the model's own answers, as in a chat, and once with those of the data, which are new to
    the cache when their turn's successor comes."""
    path = data / "chat" / "sgd_dialogues.part1.jsonl"
    every = [json.loads(line)["turns"] for line in path.read_text(encoding="utf-8").splitlines()]
    long_enough = [d for d in every if sum(t["speaker"] == "USER" for t in d) >= 5]
    pair = Pair(model, context=4096)
    figures = []
    for own, what in ((True, "own answers of 64 tokens"), (False, "answers of the data")):
        cuts, prompts = [], []
        for i, turns in enumerate(long_enough[:rounds]):
            ttft = {}
            for on in (True, False) if i % 2 else (False, True):
                ttft[on], prompt = _fifth_turn(pair.by_cache[on], turns, own=own)
            prompts.append(prompt)
            cuts.append((1 - ttft[True] / ttft[False]) * 100)
        note = f"SGD users, prompts of {min(prompts)} to {max(prompts)} tokens."
        name = f"time to first token at turn 5, down by ({what})"
        figures.append(Figure(name, ">= 85 %", tuple(cuts), "%", note))
    return figures


def _fifth_turn(llm: LLM, turns: Sequence[dict[str, str]], *, own: bool) -> tuple[float, int]:
    """(ms to the first token of the fifth turn, tokens of its prompt)."""
    users = [t["utterance"] for t in turns if t["speaker"] == "USER"][:5]
    given = [t["utterance"] for t in turns if t["speaker"] != "USER"]
    params = SamplingParams(max_tokens=64 if own else 1, temperature=0, ignore_eos=own)
    transcript, messages = Transcript(llm.tokenizer), []
    _warm_up(llm)
    for user, answer in zip(users, given, strict=False):
        messages.append({"role": "user", "content": user})
        encoded = llm.encode_chat(messages)
        ids = transcript.prompt(encoded) if own else encoded
        (output,) = llm.generate([ids], params)
        completion = output.outputs[0]
        transcript.note(encoded, ids, completion.token_ids)
        messages.append({"role": "assistant", "content": completion.text if own else answer})
    assert output.metrics.ttft_ms is not None
    return output.metrics.ttft_ms, len(ids)


def long_prompt_among_streams(model: str, rounds: int) -> list[Figure]:
    """2,048 tokens arrive among six streams of 64 tokens: gaps between a stream's tokens."""
    chunked = LLM(model, context=4096, max_batch_tokens=4096, step_ms=100)
    whole = LLM(model, context=4096, max_batch_tokens=4096, step_ms=None)
    for llm in (chunked, whole):
        _stream_gaps(llm, seed=0)  # the rate of steps is learnt here
    gaps, losses, steps = [], [], []
    for i in range(rounds):
        found = {}
        for llm in (chunked, whole) if i % 2 else (whole, chunked):
            before = len(llm.records)
            found[llm] = _stream_gaps(llm, seed=i + 1)
            if llm is chunked:
                steps += [r.seconds for r in llm.records[before:] if r.computed_tokens > STREAMS]
        gaps.append(found[whole][0] / found[chunked][0])
        losses.append((found[chunked][1] / found[whole][1] - 1) * 100)
    p95 = quantiles(steps, n=20)[-1] * 10  # seconds to times of the 100 ms target
    return [
        Figure("p99 gap between tokens, whole over chunked", ">= 5", tuple(gaps), "times"),
        Figure("time lost by chunks", "< 10 %", tuple(losses), "%"),
        Figure("p95 of steps with a prefill", "<= 1.3", (p95,), "times the 100 ms target"),
    ]


def scheduler_share(model: str, rounds: int) -> list[Figure]:
    """Batch 32: what planning and booking take of a decode step, and the whole of Python."""
    llm = LLM(model, context=1024)
    vocab = llm.program.vocab_size
    engine, spent = llm.loop.engine, [0.0]
    for owner, name in ((engine.scheduler, "schedule"), (engine.updater, "update")):
        setattr(owner, name, _counted(getattr(owner, name), spent))
    params = SamplingParams(max_tokens=96, temperature=0, ignore_eos=True)
    shares, python = [], []
    for i in range(rounds):
        draw = random.Random(i)
        prompts = [[draw.randrange(vocab) for _ in range(64)] for _ in range(32)]
        before, spent[0] = len(llm.records), 0.0
        llm.generate(prompts, params)
        steps = llm.records[before:]
        total = sum(s.seconds for s in steps)
        shares.append(spent[0] / total * 100)
        python.append((1 - sum(s.forward_seconds for s in steps) / total) * 100)
    return [
        Figure("scheduler's share of a step at batch 32", "< 3 %", tuple(shares), "%"),
        Figure("all Python of a step at batch 32", "-", tuple(python), "%"),
    ]


def _stream_gaps(llm: LLM, seed: int) -> tuple[float, float]:
    """(p99 gap between the tokens of a stream, seconds in all) with a long prompt at step 16."""
    engine, vocab = llm.loop.engine, llm.program.vocab_size
    draw = random.Random(seed)

    def add(length: int, tokens: int) -> Request:
        prompt = [draw.randrange(vocab) for _ in range(length)]
        params = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
        return engine.add(prompt, params, RequestOptions())

    streams = [add(64, 64) for _ in range(STREAMS)]
    times: dict[object, list[float]] = {s: [] for s in streams}
    begin, step = time.perf_counter(), 0
    while engine.has_unfinished:
        result = engine.step()
        now = time.perf_counter()
        for sequence in result.grown:
            if sequence.request in times:
                times[sequence.request].append(now)
        step += 1
        if step == 16:
            add(2048, 1)
    gaps = [b - a for each in times.values() for a, b in pairwise(each)]
    return quantiles(gaps, n=100)[-1], time.perf_counter() - begin


def _warm_up(llm: LLM) -> None:
    llm.generate([[1, 2, 3]], SamplingParams(max_tokens=2, ignore_eos=True))


def _timed(run: Callable[[], T]) -> tuple[float, T]:
    begin = time.perf_counter()
    result = run()
    return time.perf_counter() - begin, result


def _counted(call: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        begin = time.perf_counter()
        try:
            return call(*args, **kwargs)
        finally:
            spent[0] += time.perf_counter() - begin

    return counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, default=data_folder(), help="else $OCTAVO_DATA")
    parser.add_argument("--only", default="few-shot,unique,dialogue,streams,scheduler")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    figures: dict[str, Callable[[], list[Figure]]] = {
        "few-shot": lambda: [few_shot(args.model, args.data, args.rounds)],
        "unique": lambda: [unique_prompts(args.model, args.rounds * 4, kv_memory="256M")],
        "dialogue": lambda: dialogues(args.model, args.data, args.rounds * 2),
        "streams": lambda: long_prompt_among_streams(args.model, args.rounds),
        "scheduler": lambda: scheduler_share(args.model, args.rounds),
    }
    names = args.only.split(",")
    if args.data is None and any(name in NEED_DATA for name in names):
        parser.error(f"{' and '.join(NEED_DATA)} need --data DIR, or OCTAVO_DATA")
    for name in names:
        for figure in figures[name]():
            print(figure.line(), flush=True)


if __name__ == "__main__":
    main()
