"""What `octavo bench` runs: prompts of random tokens, and what the engine says they took.

Speeds are those of RequestOutput.metrics, the ones every user sees; costs are counted by the cost
interpreter over the packed weights that the kernels read. Prompts differ from round to round, so
that no cache between requests can help.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from octavo.bench.rounds import TokenCost
from octavo.errors import UsageError
from octavo.program.cost import OpCost, Work, cost
from octavo.program.kv_bytes import PageFormats
from octavo.program.program import Program
from octavo.request import RequestOutput
from octavo.sampling_params import Sampling, SamplingParams

if TYPE_CHECKING:
    from octavo.serving.llm import LLM


@dataclass(frozen=True, slots=True)
class Sizes:
    """The model as the engine holds it: what the cost interpreter needs to count."""

    program: Program
    weight_bytes: Mapping[str, float]
    formats: PageFormats

    def token_cost(self, works: list[Work], tokens: int) -> TokenCost:
        """What one token costs where these forwards together make `tokens` of them."""
        costs = self._costs(works)
        return TokenCost(
            bytes_per_token=sum(each.memory_bytes for each in costs) / tokens,
            ops_per_token=sum(each.flops for each in costs) / tokens,
        )

    def weight_bytes_of(self, works: list[Work]) -> float:
        """Return the bytes of weights that these forwards read together."""
        return sum(each.weight_bytes for each in self._costs(works))

    def _costs(self, works: list[Work]) -> list[OpCost]:
        return [
            each
            for work in works
            for each in cost(
                self.program,
                work,
                weight_bytes=self.weight_bytes,
                formats=self.formats,
            )
        ]


def random_prompt(vocab_size: int, length: int, seed: int) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(vocab_size) for _ in range(length)]


def decode_round(llm: LLM, context: int, tokens: int, seed: int) -> float:
    """Tokens per second of `tokens` new ones after a prompt of `context`."""
    output = _generate(llm, context, tokens, seed)
    assert output.metrics.decode_tps is not None, "more than one token was made"
    return output.metrics.decode_tps


def decode_cost(sizes: Sizes, context: int, tokens: int) -> TokenCost:
    # The first new token comes with the prompt; the others are a step each.
    steps = [Work(rows=1, past=context + i) for i in range(tokens - 1)]
    return sizes.token_cost(steps, len(steps))


def batch_round(llm: LLM, streams: int, context: int, tokens: int, seed: int) -> float:
    """Tokens per second of all streams together, over the steps that were one token of each."""
    before = llm.records[-1].step if llm.records else -1
    seeds = range(seed * streams, (seed + 1) * streams)
    prompts = [random_prompt(llm.model_config.tokens, context, each) for each in seeds]
    llm.generate(prompts, greedy(tokens))
    steps = [r for r in llm.records if r.step > before]
    whole = [r for r in steps if r.num_requests == r.computed_tokens == r.output_rows == streams]
    if not whole:
        raise UsageError(
            f"--streams {streams}: no step had a token of each; expected more --tokens than "
            f"{tokens}, or more KV memory"
        )
    return streams * len(whole) / sum(r.seconds for r in whole)


def batch_cost(sizes: Sizes, streams: int, context: int, tokens: int) -> TokenCost:
    """Weights are read once a step, K and V of each stream for itself."""
    one = decode_cost(sizes, context, tokens)
    steps = range(context, context + tokens - 1)
    rows = sizes.weight_bytes_of([Work(streams, past, streams) for past in steps])
    row = sizes.weight_bytes_of([Work(rows=1, past=past) for past in steps])
    shared = (rows / streams - row) / len(steps)
    return TokenCost(one.bytes_per_token + shared, one.ops_per_token)


def prefill_round(llm: LLM, context: int, seed: int) -> float:
    """Prompt tokens per second, up to and with the first new token."""
    output = _generate(llm, context, 1, seed)
    assert output.metrics.prefill_tps is not None
    return output.metrics.prefill_tps


def prefill_cost(sizes: Sizes, context: int, rows_a_step: int) -> TokenCost:
    """Weights are read once for each step of at most `rows_a_step` rows."""
    works = []
    for start in range(0, context, rows_a_step):
        rows = min(rows_a_step, context - start)
        works.append(Work(rows, past=start, output_rows=int(start + rows == context)))
    return sizes.token_cost(works, context)


def timed_generation(llm: LLM, context: int, tokens: int, seed: int) -> tuple[float, list[int]]:
    """Seconds for prompt and answer together, and the answer's tokens."""
    start = time.perf_counter()
    output = _generate(llm, context, tokens, seed)
    return time.perf_counter() - start, list(output.outputs[0].token_ids)


def greedy(tokens: int) -> SamplingParams:
    """Take the likeliest token, whatever the model's file recommends, so many times."""
    params = SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True)
    return params.filled(Sampling())


def _generate(llm: LLM, context: int, tokens: int, seed: int) -> RequestOutput:
    prompt = random_prompt(llm.model_config.tokens, context, seed)
    (output,) = llm.generate([prompt], greedy(tokens))
    return output
