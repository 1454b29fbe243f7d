"""What a load asks for, and when: prompts, lengths of answers, arrivals.

Drawn from a seed: one seed is one load, on every machine. Knows no server and no tokenizer: a token
of a prompt is a word, of those that are one token to the vocabularies of GPT-2's kind and Gemma's
alike. What the server counted is what is reported.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from typing import NamedTuple

from octavo.bench.server_load.config import LoadConfig
from octavo.bench.server_load.sharegpt import read_sharegpt

# Means of ShareGPT's prompts and answers, in tokens: Kwon et al., "Efficient Memory Management for
# Large Language Model Serving with PagedAttention" (SOSP 2023), figure 11. It draws histograms with
# long tails and gives no more figures, so the shape is ours: log-normal with a sigma of 1, and
# lengths below 4 or above 1,024, which vLLM's benchmarks leave out, are made 4 and 1,024.
PROMPT_MEAN, ANSWER_MEAN = 161.31, 337.99
SIGMA = 1.0
LEAST, MOST = 4, 1024

_ENGLISH = """
the of and to in that is was for it with as his on be at by had not are but from or have an
they which one you were her all she there would their we him been has when who will more no if
out so said what up its about into than them can only other new some could time these two may
then do first any my now such like our over man me even most made after also did many before
must through back years where much your way well down should because each just those people
how too little state good very make world still own see men work long get here between both
life being under never day same another know while last might us great old year off come since
against go came right used take three few house use during without again place around however
home small found thought went say part once general high upon school every does got left
number course until always away something fact though water less public put think almost hand
enough far head yet government system better set nothing night end why called find going
"""
WORDS = tuple(_ENGLISH.split())


class Ask(NamedTuple):
    """One request: its prompt, and the tokens that its answer may have."""

    prompt: str
    max_tokens: int


def make_asks(config: LoadConfig) -> list[Ask]:
    """The requests of a load in the order they are sent. Raises UsageError for a dataset that is
    none, or too small."""
    if config.dataset is None:
        pairs = synthetic(config)
    else:
        pairs = read_sharegpt(config.dataset, config.requests, config.seed)
    first = words(config.shared, f"shared {config.seed}") + " " if config.shared else ""
    most = math.inf if config.max_tokens is None else config.max_tokens
    return [
        Ask(first + prompt, int(min(config.tokens or answer, most))) for prompt, answer in pairs
    ]


def synthetic(config: LoadConfig) -> list[tuple[str, int]]:
    """Prompts of words, and lengths of answers."""
    draw = random.Random(f"lengths {config.seed}")
    pairs = []
    for i in range(config.requests):
        prompt, answer = length(draw, PROMPT_MEAN), length(draw, ANSWER_MEAN)
        pairs.append((words(config.own or prompt, f"own {config.seed} {i}"), answer))
    return pairs


def length(draw: random.Random, mean: float) -> int:
    """Draw one of ShareGPT's shape."""
    mu = math.log(mean) - SIGMA**2 / 2  # which gives the log-normal that mean
    return min(MOST, max(LEAST, round(draw.lognormvariate(mu, SIGMA))))


def words(count: int, seed: str) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=count))


def arrivals(config: LoadConfig) -> list[float]:
    """Seconds after the begin at which each request is sent; the first is sent at once."""
    return list(itertools.islice(_arrivals(config.rate, config.seed), config.requests))


def _arrivals(rate: float, seed: int) -> Iterator[float]:
    draw, at = random.Random(f"arrivals {seed}"), 0.0
    while True:
        yield at
        at += draw.expovariate(rate) if rate < math.inf else 0.0
