"""The machine allows a workload a speed: that at which memory or dots alone would end it.

Counted by the cost interpreter over the weights as Octavo holds them, with K and V in bf16. Every
phase takes the longer of its bytes at the read bandwidth and its operations at the dot peak.
Knows no clock and no peer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from benchmarks.peer.workloads import Workload
from octavo.bench.machine import Reading
from octavo.bench.rounds import TokenCost
from octavo.bench.workloads import Sizes, batch_cost, decode_cost, prefill_cost
from octavo.kernels import KV_FORMATS
from octavo.program.cost import Work
from octavo.program.kv_bytes import PageFormats
from octavo.weights.model_header import ModelHeader
from octavo.weights.packed_formats import packed_bytes

_ROUGH = 64  # tokens of a past that are taken for one another, where hundreds of steps are counted


@dataclass(frozen=True, slots=True)
class Limit:
    tokens: int
    phases: tuple[TokenCost, ...]  # of the whole phase, not of a token

    def speed(self, reading: Reading) -> float:
        """Tokens a second."""
        seconds = sum(
            max(
                phase.bytes_per_token / reading.bytes_per_second,
                phase.ops_per_token / reading.ops_per_second,
            )
            for phase in self.phases
        )
        return self.tokens / seconds


def sizes_of(header: ModelHeader) -> Sizes:
    program = header.program()
    kept = packed_bytes(header, program.weights(), None)
    return Sizes(program, kept, PageFormats.everywhere(KV_FORMATS["bf16"]))


def limit(sizes: Sizes, work: Workload) -> Limit:
    first, streams = work.requests[0], len(work.requests)
    if work.counted == "prompt":
        return Limit(1, (prefill_cost(sizes, first.prompt, first.prompt),))
    if work.counted == "new" and streams == 1:
        return Limit(1, (decode_cost(sizes, first.prompt, first.new),))
    if work.counted == "new":
        return Limit(1, (batch_cost(sizes, streams, first.prompt, first.new),))
    return Limit(work.new_tokens, (_prompts(sizes, work), *_answers(sizes, work)))


def _prompts(sizes: Sizes, work: Workload) -> TokenCost:
    """All prompts in one forward, what they share once."""
    works = [Work(each.prompt - work.shared, past=work.shared) for each in work.requests]
    if work.shared:
        works.append(Work(work.shared, output_rows=0))
    return _together(sizes, works)


def _answers(sizes: Sizes, work: Workload) -> list[TokenCost]:
    """Every request takes a token each step until it has all; the first came with its prompt."""
    phases = []
    ends = sorted({each.new for each in work.requests})
    cuts = sorted({1, *ends, *range(_ROUGH, ends[-1], _ROUGH)})
    for begin, end in pairwise(cuts):
        running = sorted(
            (each.prompt + begin) // _ROUGH * _ROUGH for each in work.requests if each.new > begin
        )
        step = _together(sizes, [Work(1, past) for past in running])
        phases.append(_times(step, end - begin))
    return phases


def _together(sizes: Sizes, works: Sequence[Work]) -> TokenCost:
    """One forward over all of these: weights are read once."""
    nbytes = ops = 0.0
    for each, same in groupby(works):
        many, cost = len(list(same)), sizes.token_cost([each], 1)
        nbytes += many * (cost.bytes_per_token - sizes.weight_bytes_of([each]))
        ops += many * cost.ops_per_token
    rows = sum(each.rows for each in works)
    outputs = sum(each.output_rows for each in works)
    return TokenCost(nbytes + sizes.weight_bytes_of([Work(rows, 0, outputs)]), ops)


def _times(cost: TokenCost, steps: int) -> TokenCost:
    return TokenCost(cost.bytes_per_token * steps, cost.ops_per_token * steps)
